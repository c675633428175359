#define _GNU_SOURCE
#include "terminal.h"
#include "util.h"

#include <fcntl.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>

#ifndef TIOCGPTPEER
#define TIOCGPTPEER _IO('T', 0x41)
#endif

void terminal_resize(int master, uint64_t rows, uint64_t columns)
{
  /* Whoever is in the terminal's foreground hears SIGWINCH, where it changed. */
  const struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns};
  ioctl(master, TIOCSWINSZ, &size);
}

int terminal_open(const struct cell *cell, const struct run *run, uint64_t rows, uint64_t columns, int *master, int *slave,
                  struct imd_error *err)
{
  /* Who opens the master is the slave's owner: the payload may open its terminal anew, as it may one that it made itself. */
  setfsgid(run->gid);
  setfsuid(run->uid);
  cleanup_fd int ours = openat(cell->view.dev, "pts/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  const int error = errno;
  setfsuid(0);
  setfsgid(0);
  /* ENOSPC: as many as the cell may have, or the host. */
  if (ours < 0)
    return imd_fail(err, IMD_STAGE_TERMINAL, error, "a terminal");
  if (ioctl(ours, TIOCSPTLCK, &(int){0}) < 0)
    return imd_fail(err, IMD_STAGE_TERMINAL, errno, "a terminal");
  /* By the master, not by a name: what stands in /dev/pts is then of no matter. */
  const int theirs = ioctl(ours, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (theirs < 0)
    return imd_fail(err, IMD_STAGE_TERMINAL, errno, "a terminal's other end");
  terminal_resize(ours, rows, columns);
  *master = imd_take_fd(&ours);
  *slave = theirs;
  return 0;
}
