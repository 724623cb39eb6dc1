//! The sample project: two files and a repository's skeleton, with nothing but a shell needed.

/// Path in the project and content.
pub const FILES: &[(&str, &str)] = &[
    (
        "greet.sh",
        "#!/bin/sh\n# Greets whoever is named.\nprintf 'Hello, %s!\\n' \"${1:-world}\"\n",
    ),
    (
        "run-tests.sh",
        "#!/bin/sh\n\
         # The tests of greet.sh.\n\
         passed=0\n\
         check() {\n\
         \x20 if [ \"$2\" = \"$3\" ]; then passed=$((passed + 1)); else echo \"$1: got '$2', not '$3'\"; exit 1; fi\n\
         }\n\
         check 'by name' \"$(sh greet.sh Ada)\" 'Hello, Ada!'\n\
         check 'without a name' \"$(sh greet.sh)\" 'Hello, world!'\n\
         check 'a name with spaces' \"$(sh greet.sh 'Grace Hopper')\" 'Hello, Grace Hopper!'\n\
         echo \"$passed tests passed\"\n",
    ),
    (".git/HEAD", "ref: refs/heads/main\n"),
    (".git/config", "[core]\n\trepositoryformatversion = 0\n"),
    (".git/hooks/README", "Hooks of this repository.\n"),
];
