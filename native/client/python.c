#include "python.h"

#include "exits.h"
#include "say.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#ifndef IMMURE_VERSION
#error "IMMURE_VERSION: the package's version, as text"
#endif

/* Where this very program lies, links resolved: it may be called through a link from anywhere, and moved. */
static bool own_directory(char made[PATH_MAX])
{
  const ssize_t length = readlink("/proc/self/exe", made, PATH_MAX - 1);
  if (length <= 0)
    return false;
  made[length] = '\0';
  char *const slash = strrchr(made, '/');
  if (!slash)
    return false;
  *slash = '\0';
  return true;
}

static bool beside(char made[PATH_MAX], const char *directory, const char *name)
{
  if (strlen(directory) + 1 + strlen(name) >= PATH_MAX)
    return false;
  strcat(strcat(strcpy(made, directory), "/"), name);
  return true;
}

_Noreturn void imc_become_python(int argc, char *const *argv)
{
  char directory[PATH_MAX], path[PATH_MAX];
  char **const words = calloc((size_t)argc + 5, sizeof *words);
  int why = ENOENT;
  if (words && own_directory(directory)) {
    setenv("IMMURE_NATIVE", IMMURE_VERSION, 1);   /* `immure --version` says so; nothing rests on it */
    /* In a virtual environment, its interpreter; it finds the package by where it lies. -P: not by where we stand. */
    if (beside(path, directory, "../pyvenv.cfg") && access(path, F_OK) == 0 && beside(path, directory, "python3")) {
      memcpy(words, (char *[]){path, "-P", "-m", "immured.cli"}, 4 * sizeof *words);
      if (argc > 1)
        memcpy(words + 4, argv + 1, ((size_t)argc - 1) * sizeof *words);
      execv(path, words);
      why = errno;
    }
    /* Elsewhere the script that pip made beside us knows the interpreter that it installed for. */
    if (beside(path, directory, "immure-python")) {
      words[0] = path;
      if (argc > 1)
        memcpy(words + 1, argv + 1, ((size_t)argc - 1) * sizeof *words);
      words[argc > 0 ? argc : 1] = NULL;
      execv(path, words);
      if (errno != ENOENT)
        why = errno;
    }
  }
  struct imc_error err;
  /* An interpreter in root's home, to which the environment's python3 is a link, say. */
  imc_fail(&err, "not_built",
           why == EACCES ? "install it where you may execute its Python: an environment made by /usr/bin/python3, say"
                         : "install it again: pip install 'immured[cli]'",
           "the Python half of this command, beside it, does not start: %s", strerrordesc_np(why));
  imc_complain_of(&err);
  _exit(argc > 1 && strcmp(argv[1], "run") == 0 ? IMC_REFUSED : 1);
}
