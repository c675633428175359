/* Two threads and one path: while one opens it to write, the other turns it from what is allowed to what is not. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[64];
static volatile int done;
static const char *forbidden;

static void *turn(void *unused)
{
  while (!done) {
    memcpy(path, "/tmp/allowed\0\0\0\0\0\0\0\0", 20);
    memcpy(path, forbidden, 20);
  }
  return unused;
}

/* FORBIDDEN COUNT: an absolute path of less than 20 characters. Prints how many opens got a descriptor that leads there. */
int main(int argc, char **argv)
{
  static char room[20];
  pthread_t thread;
  int through = 0;
  if (argc != 3 || strlen(argv[1]) >= sizeof room)
    return 2;
  strcpy(room, argv[1]);
  forbidden = room;
  close(open("/tmp/allowed", O_CREAT | O_WRONLY, 0600));
  pthread_create(&thread, NULL, turn, NULL);
  for (int i = atoi(argv[2]); i > 0; i--) {
    const int fd = open(path, O_WRONLY);
    if (fd < 0)
      continue;
    char link[32], name[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t size = readlink(link, name, sizeof name - 1);
    name[size > 0 ? size : 0] = '\0';
    through += strcmp(name, argv[1]) == 0;
    close(fd);
  }
  done = 1;
  pthread_join(thread, NULL);
  printf("%d\n", through);
  return 0;
}
