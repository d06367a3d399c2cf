"""The checks of this project: ``nox -s lint typing reference tests cpp sanitizers``.

They run the tools of the environment that nox itself runs in (``pip install -ve ".[dev]"``), so that
an editor, pre-commit and CI all use the same versions; no session builds an environment of its own.
"""

from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "typing", "reference", "tests", "cpp", "sanitizers"]

CPP_FOLDERS = ("ascend_ops", "bindings", "examples", "tests/cpp")


@nox.session
def lint(session: nox.Session) -> None:
    """Formatters and linters, changing nothing; ``nox -s lint -- --fix`` lets them mend."""
    fix = "--fix" in session.posargs
    sources = [
        str(path)
        for folder in CPP_FOLDERS
        for path in sorted(Path(folder).rglob("*"))
        if path.suffix in {".h", ".cpp"}
    ]
    session.run("ruff", "format", *([] if fix else ["--check"]), ".")
    session.run("ruff", "check", *(["--fix"] if fix else []), ".")
    session.run("clang-format", *(["-i"] if fix else ["--dry-run", "-Werror"]), *sources)


@nox.session
def typing(session: nox.Session) -> None:
    """Run mypy, strict, over the three packages."""
    session.run("mypy")


@nox.session
def reference(session: nox.Session) -> None:
    """Run the reference's tests on its sources, and require that they reach 98% of its lines."""
    session.run(
        "pytest",
        "tests/reference",
        "--cov=glm2_reference",
        "--cov-report=term-missing:skip-covered",
        "--cov-fail-under=98",
        env={"PYTHONPATH": "reference"},
    )


@nox.session
def tests(session: nox.Session) -> None:
    """Run pytest on the installed package; arguments after ``--`` go to it."""
    session.run("pytest", *session.posargs)


@nox.session
def cpp(session: nox.Session) -> None:
    """Build twin, kernels and host code with warnings as errors, and run their GoogleTest suite."""
    build = "build/cpp"
    options = ["-DGLM2_BUILD_TESTS=ON", "-DGLM2_WERROR=ON"]
    session.run("cmake", "-S", ".", "-B", build, "-G", "Ninja", *options)
    session.run("cmake", "--build", build)
    session.run("ctest", "--test-dir", build, "--output-on-failure")
    # The twin as a package, and the example kernels that find it.
    package = "tests/project/test_twin_package.py"
    session.run("pytest", package, env={"PYTHONPATH": "reference"})


@nox.session
def sanitizers(session: nox.Session) -> None:
    """Run the C++ tests under AddressSanitizer with UndefinedBehaviorSanitizer, and ThreadSanitizer.

    All tests share a process here, so that a launch meets what earlier ones left. ThreadSanitizer
    leaves out random programs that run on one thread, and its search for deadlocks, which crashes
    in GCC 12's runtime where there are fibers.
    """
    options = {
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": "detect_deadlocks=0",
        "GLM2_NUM_THREADS": "4",
    }
    for preset, tests in (("asan", "*"), ("tsan", "-L1Views.*:PendingCopy.*")):
        session.run("cmake", "--preset", preset)
        session.run("cmake", "--build", "--preset", preset, "--target", "twin_test")
        output = session.run(
            f"build/{preset}/tests/cpp/twin_test",
            "--gtest_brief=1",
            f"--gtest_filter={tests}",
            external=True,
            silent=True,
            env=options,
        )
        session.log(output)
        if "[  PASSED  ]" not in str(output):  # a sanitizer that crashes itself may exit with 0
            session.error(f"{preset}: the tests did not come to their end")
