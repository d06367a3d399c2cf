# GLM2_OPERATORS: what the OPP package for NPUs holds. An operator's folder, its files and its entry
# are named after it; to CANN it is Glm2FlashAttention, for the names of CANN's own are taken.
set(GLM2_OPERATORS flash_attention flash_attention_grad quant_matmul rms_norm rope_append swiglu)

function(glm2_op_type operator result)
  set(type Glm2)
  string(REPLACE "_" ";" words ${operator})
  foreach(word IN LISTS words)
    string(SUBSTRING ${word} 0 1 first)
    string(SUBSTRING ${word} 1 -1 rest)
    string(TOUPPER ${first} first)
    string(APPEND type ${first}${rest})
  endforeach()
  set(${result} ${type} PARENT_SCOPE)
endfunction()
