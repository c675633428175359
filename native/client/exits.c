#include "exits.h"

static const struct { const char *cause, *what, *option; } ended[] = {
    {"timeout", "ended at its wall-time limit", "--wall"},
    {"cpu_time", "ended at its limit of processor time", "--cpu-time"},
    {"oom", "used up its memory", "--memory"},
    {"pids", "reached its limit of processes", "--pids"},
    {"output_limit", "wrote more than its output limit", "--output"},
    {"violation", "was ended at a write outside what its manifest allows", NULL},
    {"killed", "was killed", NULL},
};

int imc_status(struct imc_bytes cause, int64_t exit_code, int64_t signal, struct imc_bytes failure)
{
  if (imc_is(cause, "exited"))
    return exit_code >= 0 ? (int)(exit_code & 0xff) : IMC_REFUSED;
  if (imc_is(cause, "signaled"))
    return (int)((IMC_SIGNALLED + (signal > 0 ? signal : 0)) & 0xff);
  if (imc_is(cause, "timeout"))
    return IMC_TIMEOUT;
  if (!imc_is(cause, "setup_failed"))
    return IMC_KILLED;
  return imc_is(failure, "executable_not_found") ? IMC_NOT_FOUND
         : imc_is(failure, "not_executable")     ? IMC_CANNOT_EXECUTE
                                                 : IMC_REFUSED;
}

bool imc_explain(struct imc_bytes cause, struct imc_error *said)
{
  static char remedy[80];
  for (size_t i = 0; i < sizeof ended / sizeof ended[0]; i++) {
    if (!imc_is(cause, ended[i].cause))
      continue;
    remedy[0] = '\0';
    if (ended[i].option)
      strcat(strcat(strcpy(remedy, "allow more with "), ended[i].option), ", if your policy lets you");
    imc_fail(said, ended[i].cause, remedy, "the command %s", ended[i].what);
    return true;
  }
  return false;
}
