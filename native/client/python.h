/* The Python command line: all that is not served here. */
#ifndef IMMURE_PYTHON_H
#define IMMURE_PYTHON_H

/* Becomes it, with the words that we were given. */
_Noreturn void imc_become_python(int argc, char *const *argv);

#endif
