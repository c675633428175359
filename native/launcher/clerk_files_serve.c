#define _GNU_SOURCE
#include "clerk_files.h"
#include "util.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* --- what is small enough to stand here */

static int files_mkdir(struct files *files, const struct files_question *question, struct imd_error *err)
{
  const bool parents = question->ask->flags & IMD_FILES_PARENTS;
  cleanup_place struct files_place place = FILES_PLACE_NONE;
  if (question->ask->mode & ~01777u)
    return imd_fail(err, IMD_FILES_SETID, 0, "%s: the mode %o has a set-id bit", question->path, question->ask->mode);
  if (files_find_place(files, question->path, parents, &place, err) < 0)
    return -1;
  if (mkdirat(place.dir, place.name, (mode_t)question->ask->mode) == 0)
    return files_chmod_at(place.dir, place.name, question->ask->mode) < 0
               ? files_fail(err, IMD_FILES_FAILED, "%s", question->path)
               : 0;
  struct stat st;
  const int error = errno;
  if (error == EEXIST && parents && fstatat(place.dir, place.name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
      S_ISDIR(st.st_mode))
    return 0;
  return imd_fail(err, error == EEXIST ? IMD_FILES_EXISTS : IMD_FILES_FAILED, error, "%s", question->path);
}

static int files_move(struct files *files, const struct files_question *question, struct imd_error *err)
{
  const unsigned flags = question->ask->flags & IMD_FILES_REPLACE ? 0 : RENAME_NOREPLACE;
  cleanup_place struct files_place from = FILES_PLACE_NONE, to = FILES_PLACE_NONE;
  if (files_find_place(files, question->path, false, &from, err) < 0 ||
      files_find_place(files, question->second, false, &to, err) < 0)
    return -1;
  struct stat st;
  if ((from.directory || to.directory) &&
      (fstatat(from.dir, from.name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode)))
    return imd_fail(err, IMD_FILES_KIND, 0, "%s is no directory", question->path);
  if (renameat2(from.dir, from.name, to.dir, to.name, flags) == 0)
    return 0;
  switch (errno) {
  case EXDEV: return imd_fail(err, IMD_FILES_ACROSS, 0, "%s and %s are on two file systems", question->path, question->second);
  case EBUSY: return imd_fail(err, IMD_FILES_MOUNTED, 0, "%s: another place is mounted there", question->path);
  case EEXIST:
  case ENOTEMPTY: return imd_fail(err, IMD_FILES_EXISTS, 0, "%s is there already", question->second);
  default: return files_fail(err, IMD_FILES_FAILED, "%s to %s", question->path, question->second);
  }
}

static int files_chmod(struct files *files, const struct files_question *question, struct imd_error *err)
{
  cleanup_place struct files_place place = FILES_PLACE_NONE;
  struct stat st;
  if (files_find_place(files, question->path, false, &place, err) < 0)
    return -1;
  if (fstatat(place.dir, place.name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
    return files_fail(err, IMD_FILES_FAILED, "%s", question->path);
  if (S_ISLNK(st.st_mode))
    return imd_fail(err, IMD_FILES_LINK, 0, "%s is a symbolic link, which has no permissions", question->path);
  if (question->ask->mode & ~(S_ISDIR(st.st_mode) ? 01777u : 0777u))
    return imd_fail(err, IMD_FILES_SETID, 0, "%s: the mode %o has more than permissions", question->path,
                    question->ask->mode);
  return files_chmod_at(place.dir, place.name, question->ask->mode) < 0
             ? files_fail(err, IMD_FILES_FAILED, "%s", question->path)
             : 0;
}

static int files_done(const struct files *files, struct files_reply *reply, struct imd_error *err)
{
  memcpy(reply->answer.number, files->flowed, sizeof reply->answer.number);
  if (files->flow.stage != 0) {
    *err = files->flow;
    return -1;
  }
  static const struct stat nothing;
  return files->flowed[2] > 0 ? files_put_row(reply, &nothing, files->left_out, strlen(files->left_out), "", 0) : 0;
}

/* --- archives: opened first, so that a refusal is the answer; what follows is told by DONE */

static int open_archived(const struct files *files, const struct files_question *question, struct imd_error *err)
{
  struct stat st;
  cleanup_fd int place = files_open(files, question->path, O_PATH, err);
  if (place < 0 || files_look(files, place, question->path, &st, err) < 0)
    return -1;
  if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
    return imd_fail(err, IMD_FILES_KIND, 0, "%s is neither a directory nor a regular file", question->path);
  cleanup_fd int top = files_open(files, question->path,
                                  O_RDONLY | O_NONBLOCK | O_NOCTTY | (S_ISDIR(st.st_mode) ? O_DIRECTORY : 0), err);
  struct stat opened;
  if (top < 0 || files_look(files, top, question->path, &opened, err) < 0)
    return -1;
  if (opened.st_ino != st.st_ino || opened.st_dev != st.st_dev)
    return imd_fail(err, IMD_FILES_RACED, 0, "%s was replaced while it was opened", question->path);
  return imd_take_fd(&top);
}

static int open_extracted(const struct files *files, const struct files_question *question, struct imd_error *err)
{
  struct stat st;
  if ((question->ask->flags & IMD_FILES_PARENTS) && files_make_parents(files, question->path, err) < 0)
    return -1;
  cleanup_fd int top = files_open(files, question->path, O_PATH | O_DIRECTORY, err);
  return top < 0 || files_look(files, top, question->path, &st, err) < 0 ? -1 : imd_take_fd(&top);
}

static const char *last_name(const char *path)
{
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

/* --- the conversation */

static int answer(struct files *files, const struct imd_header *header, const struct files_question *question,
                  struct files_reply *reply, struct imd_error *err)
{
  switch (header->type) {
  case IMD_FILES_STAT: return files_stat(files, question, reply, err);
  case IMD_FILES_LIST: return files_list(files, question, reply, err);
  case IMD_FILES_MKDIR: return files_mkdir(files, question, err);
  case IMD_FILES_MOVE: return files_move(files, question, err);
  case IMD_FILES_REMOVE: return files_remove(files, question, reply, err);
  case IMD_FILES_CHMOD: return files_chmod(files, question, err);
  case IMD_FILES_GLOB: return files_glob(files, question, reply, err);
  case IMD_FILES_FOUND: return files_found(files, question, reply, err);
  case IMD_FILES_GET: return files_get(files, question, reply, err);
  case IMD_FILES_PUT: return files_put(files, question, reply, err);
  case IMD_FILES_RESERVE: return files_reserve(files, question, reply, err);
  case IMD_FILES_COMMIT: return files_commit(files, question, reply, err);
  case IMD_FILES_DONE: return files_done(files, reply, err);
  default: return imd_fail(err, IMD_FILES_ORDER, 0, "an operation %u", header->type);
  }
}

static int send_answer(const struct files *files, const struct imd_header *header, struct files_reply *reply,
                       const struct imd_error *err)
{
  reply->answer.refusal = err->stage;
  reply->answer.error = err->error;
  const char *said = err->stage != 0 ? err->text : reply->body;
  const size_t size = err->stage != 0 ? strlen(err->text) : reply->size;
  const struct iovec body[] = {{&reply->answer, sizeof reply->answer}, {(void *)(uintptr_t)said, size}};
  const bool passes = err->stage == 0 && reply->fd >= 0;
  return imd_send_packet(files->socket, header->type, header->id, body, 2, &reply->fd, passes ? 1 : 0, 0);
}

/* Answered first, with whether it begins at all; then it flows. */
static int let_flow(struct files *files, const struct imd_header *header, const struct files_question *question,
                    struct files_reply *reply)
{
  struct imd_error err = IMD_ERROR_INIT;
  cleanup_fd int pipe = question->fd;
  cleanup_fd int top = -1;
  files->flow = (struct imd_error)IMD_ERROR_INIT;
  memset(files->flowed, 0, sizeof files->flowed);
  if (pipe < 0)
    imd_fail(&err, IMD_FILES_ORDER, 0, "no pipe came along");
  else if (header->type == IMD_FILES_ARCHIVE)
    top = open_archived(files, question, &err);
  else if (header->type == IMD_FILES_EXTRACT)
    top = open_extracted(files, question, &err);
  if (send_answer(files, header, reply, &err) < 0)
    return -1;
  if (err.stage != 0)
    return 0;
  const uint64_t most = question->ask->number[0];
  switch (header->type) {
  case IMD_FILES_POUR: files_pour(files, pipe, &files->flow); break;
  case IMD_FILES_FILL: files_fill(files, pipe, &files->flow); break;
  case IMD_FILES_ARCHIVE: files_archive(files, top, last_name(question->path), pipe, most, &files->flow); break;
  default:
    files_extract(files, top, pipe, most, question->ask->flags & IMD_FILES_REPLACE, &files->flow);
    break;
  }
  return 0;
}

/* The texts, made to end with a NUL each. False: the packet lies about them. */
static bool read_question(char *packet, size_t size, char *texts, const struct imd_fds *fds,
                          struct files_question *question)
{
  const size_t start = sizeof(struct imd_header) + sizeof(struct imd_files_ask);
  const struct imd_files_ask *ask = (const void *)(packet + sizeof(struct imd_header));
  if (size < start || ask->first > IMD_FILES_MAX_PATH || ask->second > IMD_FILES_MAX_PATH ||
      size != start + ask->first + ask->second || fds->count > 1)
    return false;
  char *second = texts + IMD_FILES_MAX_PATH + 1;
  memcpy(texts, packet + start, ask->first);
  texts[ask->first] = '\0';
  memcpy(second, packet + start + ask->first, ask->second);
  second[ask->second] = '\0';
  *question = (struct files_question){ask, texts, second, fds->count == 1 ? fds->fd[0] : -1};
  return strlen(texts) == ask->first && strlen(second) == ask->second;
}

static bool flows(uint32_t op)
{
  return op == IMD_FILES_POUR || op == IMD_FILES_FILL || op == IMD_FILES_ARCHIVE || op == IMD_FILES_EXTRACT;
}

/* False: the connection is over. */
static bool serve_one(struct files *files, char *packet, char *texts, char *body)
{
  __attribute__((cleanup(imd_fds_close))) struct imd_fds fds = {.count = 0};
  const ssize_t got = imd_recv_packet(files->socket, packet, IMD_MAX_PACKET, &fds, 0);
  if (got <= 0)
    return false;
  const struct imd_header *header = (const void *)packet;
  struct files_question question;
  struct files_reply reply = {.body = body, .fd = -1};
  struct imd_error err = IMD_ERROR_INIT;
  if (!read_question(packet, (size_t)got, texts, &fds, &question)) {
    imd_fail(&err, IMD_FILES_ORDER, 0, "a question that is none");
    return send_answer(files, header, &reply, &err) == 0;
  }
  if (flows(header->type)) {
    fds.count = 0;
    return let_flow(files, header, &question, &reply) == 0;
  }
  if (answer(files, header, &question, &reply, &err) < 0 && err.stage == 0)
    imd_fail(&err, IMD_FILES_FAILED, EIO, "it failed without a reason");
  return send_answer(files, header, &reply, &err) == 0;
}

_Noreturn void files_serve(int socket, int root, const dev_t kernel[3])
{
  struct files *files = imd_allocate(sizeof *files);
  files->socket = socket;
  files->root = root;
  files->put.dir = files->put.fd = files->get = -1;
  memcpy(files->kernel, kernel, sizeof files->kernel);
  char *packet = imd_allocate(IMD_MAX_PACKET), *body = imd_allocate(IMD_FILES_BODY);
  char *texts = imd_allocate(2 * (IMD_FILES_MAX_PATH + 1));
  while (serve_one(files, packet, texts, body))
    continue;
  files_put_drop(files);
  _exit(EXIT_SUCCESS);
}
