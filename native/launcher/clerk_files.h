/*
 * The clerk for a sandbox's files: it is the payload (user namespace, ids, no capability, a filter of its own) and serves
 * one broker's connection until that ends. A path goes through openat2 from the sandbox's root: beneath it, through no
 * magic link. So a mistake here reaches what the payload reaches, and no more.
 */
#ifndef IMMURED_CLERK_FILES_H
#define IMMURED_CLERK_FILES_H

#include "clerk_files_words.h"
#include "error.h"
#include "message.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#define files_fail(err, refusal, ...) imd_fail((err), (refusal), errno, __VA_ARGS__)

/* A file on its way to its name. */
struct files_put {
  int dir, fd;                     /* -1: none */
  char name[256];
  char temporary[48];              /* what it is called until then; empty: written in place */
  uint32_t mode;
  uint64_t came;                   /* bytes through a pipe */
  bool replace, keep_mode, filled;
};

struct files {
  int socket, root;
  dev_t kernel[3];                 /* file systems that hold no files: /proc, /dev/pts, /dev/mqueue */
  struct files_put put;
  int get;                         /* what GET opened; -1 */
  uint64_t get_most;
  char *found;                     /* rows of a GLOB that wait */
  size_t found_size, found_at;
  /* Of what flowed through a pipe last: to be told by DONE. */
  struct imd_error flow;
  uint64_t flowed[4];
  char left_out[IMD_FILES_MAX_PATH + 1];
};

/* A question, with its texts NUL-terminated, and the answer to it. */
struct files_question {
  const struct imd_files_ask *ask;
  const char *path, *second;
  int fd;                          /* that came along; -1 */
};
struct files_reply {
  struct imd_files_answer answer;
  char *body;                      /* IMD_FILES_BODY bytes */
  size_t size;
  int fd;                          /* borrowed; -1: none */
};

/* Where something is or will be: its directory, as O_PATH, and its name there. */
struct files_place {
  int dir;
  char name[256];
  bool directory;                  /* a slash came after it */
};
#define FILES_PLACE_NONE {.dir = -1}
void files_place_close(struct files_place *place);
#define cleanup_place __attribute__((cleanup(files_place_close)))

/* --- paths (clerk_files_path.c) */

/* openat2 from the root; with `parents` directories are made on the way. `flags` as open's. */
int files_open(const struct files *files, const char *path, uint64_t flags, struct imd_error *err);
int files_find_place(const struct files *files, const char *path, bool parents, struct files_place *place,
                     struct imd_error *err);
/* Makes what is missing of a directory's path. */
int files_make_parents(const struct files *files, const char *path, struct imd_error *err);
/* The file system of `fd` is the kernel's own: refused. Fills `st`. */
int files_look(const struct files *files, int fd, const char *path, struct stat *st, struct imd_error *err);
/* Its file system needs no other process to be read or written: flags LOCAL and MEMORY. */
uint32_t files_where(int fd);
/* Permissions: what is there itself, never where a link leads. */
int files_chmod_at(int dir, const char *name, uint32_t mode);

/* --- one answer each */

int files_put_row(struct files_reply *reply, const struct stat *st, const char *name, size_t name_length,
                  const char *target, size_t target_length);
int files_stat(struct files *files, const struct files_question *question, struct files_reply *reply,
               struct imd_error *err);
int files_list(struct files *files, const struct files_question *question, struct files_reply *reply,
               struct imd_error *err);
int files_glob(struct files *files, const struct files_question *question, struct files_reply *reply,
               struct imd_error *err);
int files_found(struct files *files, const struct files_question *question, struct files_reply *reply,
                struct imd_error *err);
int files_remove(struct files *files, const struct files_question *question, struct files_reply *reply,
                 struct imd_error *err);
int files_get(struct files *files, const struct files_question *question, struct files_reply *reply,
              struct imd_error *err);
int files_put(struct files *files, const struct files_question *question, struct files_reply *reply,
              struct imd_error *err);
int files_reserve(struct files *files, const struct files_question *question, struct files_reply *reply,
                  struct imd_error *err);
int files_commit(struct files *files, const struct files_question *question, struct files_reply *reply,
                 struct imd_error *err);

/* --- what flows through a pipe, once its question was answered; files->flow says what it came to */

int files_pour(struct files *files, int pipe, struct imd_error *err);
int files_fill(struct files *files, int pipe, struct imd_error *err);
/* `top`: what is archived, `name`: what it is called there if it is no directory. */
int files_archive(struct files *files, int top, const char *name, int pipe, uint64_t most, struct imd_error *err);
int files_extract(struct files *files, int top, int pipe, uint64_t most, bool replace, struct imd_error *err);

/* What PUT left unfinished goes. */
void files_put_drop(struct files *files);

/* Serves until the connection ends. The caller is the payload, and holds nothing but these two descriptors. */
_Noreturn void files_serve(int socket, int root, const dev_t kernel[3]);

/* The calls that the clerk needs from here on, and no other. */
int files_restrict(void);

#endif
