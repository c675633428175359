/* kill as wardens know it; and whoever is about to signal somebody by it stops first, until somebody sends SIGCONT. */
#include <signal.h>

int __real_kill(pid_t process, int number);
int __wrap_kill(pid_t process, int number);

int __wrap_kill(pid_t process, int number)
{
  raise(SIGSTOP);
  return __real_kill(process, number);
}
