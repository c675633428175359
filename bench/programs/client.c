/*
 * The smallest client of docs/protocol.md that signs and verifies: one open connection, `/bin/true` again and again.
 *
 * In C for the same reason as spawn.c: what is compared is the daemon with a tool that is written in C, not the start-up
 * and the interpreter of whoever calls it. An empty line on stdin is one run; one line on stdout answers with its wall
 * time in nanoseconds, from before the signing to after the verification of the reply, and a 0. A number on stdin is so
 * many milliseconds of runs back to back, answered with how many ended in that time and how many nanoseconds it was.
 *
 * client SOCKET ADMIN-SEED-HEX DAEMON-PUBLIC-HEX COMMAND
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sodium.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define COMMAND_TYPE "application/vnd.immured.command.v1+msgpack"
#define REPLY_TYPE "application/vnd.immured.reply.v1+msgpack"
enum { FRAME = 1 << 20, NONCE = 16, KEY_ID = 40 };

static void die(const char *what)
{
  fprintf(stderr, "client: %s: %s\n", what, strerror(errno));
  exit(1);
}

/* --- msgpack, as much as it takes --- */

struct out { uint8_t bytes[4096]; size_t size; };

static void put(struct out *out, const void *bytes, size_t size)
{
  if (out->size + size > sizeof out->bytes)
    die("too long");
  memcpy(out->bytes + out->size, bytes, size);
  out->size += size;
}

static void put_byte(struct out *out, unsigned byte) { put(out, &(uint8_t){(uint8_t)byte}, 1); }

static void put_text(struct out *out, const char *text)
{
  put_byte(out, 0xd9);
  put_byte(out, (unsigned)strlen(text));
  put(out, text, strlen(text));
}

static void put_binary(struct out *out, const void *bytes, size_t size)
{
  put_byte(out, 0xc5);
  put_byte(out, (unsigned)(size >> 8));
  put_byte(out, (unsigned)(size & 255));
  put(out, bytes, size);
}

static void put_number(struct out *out, uint64_t number)
{
  put_byte(out, 0xcf);
  for (int shift = 56; shift >= 0; shift -= 8)
    put_byte(out, (unsigned)(number >> shift & 255));
}

/* The string or binary at *at; moves on behind it. */
static const uint8_t *take(const uint8_t **at, const uint8_t *end, size_t *size)
{
  const unsigned head = *at < end ? *(*at)++ : 0;
  unsigned length_bytes = head == 0xd9 || head == 0xc4 ? 1 : head == 0xda || head == 0xc5 ? 2 : head == 0xc6 ? 4 : 0;
  size_t length = (head & 0xe0) == 0xa0 ? head & 31 : 0;
  if (!length_bytes && (head & 0xe0) != 0xa0)
    die("a reply that this client does not read");
  while (length_bytes-- > 0 && *at < end)
    length = length << 8 | *(*at)++;
  const uint8_t *found = *at;
  if (length > (size_t)(end - found))
    die("a reply that ends early");
  *at += length;
  *size = length;
  return found;
}

/* --- the wire --- */

static void send_all(int fd, const uint8_t *bytes, size_t size)
{
  while (size > 0) {
    const ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
    if (sent <= 0)
      die("send");
    bytes += sent;
    size -= (size_t)sent;
  }
}

static void receive_all(int fd, uint8_t *bytes, size_t size)
{
  while (size > 0) {
    const ssize_t got = recv(fd, bytes, size, MSG_WAITALL);
    if (got <= 0)
      die("receive");
    bytes += got;
    size -= (size_t)got;
  }
}

static size_t receive_frame(int fd, uint8_t *frame)
{
  uint8_t head[4];
  receive_all(fd, head, sizeof head);
  const size_t size = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
  if (size > FRAME)
    die("a frame too large");
  receive_all(fd, frame, size);
  return size;
}

/* DSSE's pre-authentication encoding. */
static size_t authenticated(uint8_t *room, const char *type, const uint8_t *payload, size_t size)
{
  const int head = sprintf((char *)room, "DSSEv1 %zu %s %zu ", strlen(type), type, size);
  memcpy(room + head, payload, size);
  return (size_t)head + size;
}

static void name_key(char id[KEY_ID + 1], const uint8_t public_key[32])
{
  uint8_t hash[32];
  crypto_hash_sha256(hash, public_key, 32);
  memcpy(id, "ed25519:", 8);
  sodium_bin2hex(id + 8, 33, hash, 16);
}

struct client {
  int fd;
  uint8_t secret[64], daemon[32];
  char own_id[KEY_ID + 1], daemon_id[KEY_ID + 1];
  const char *command;
};

static void ask(struct client *client, const uint8_t nonce[NONCE])
{
  static uint8_t room[8192];
  struct out payload = {.size = 0}, envelope = {.size = 0};
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  const uint64_t ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;

  put_byte(&payload, 0x86);
  put_text(&payload, "aud"), put_text(&payload, client->daemon_id);
  put_text(&payload, "cmd"), put_text(&payload, "run");
  put_text(&payload, "args"), put_byte(&payload, 0x81);
  put_text(&payload, "argv"), put_byte(&payload, 0x91), put_text(&payload, client->command);
  put_text(&payload, "nonce"), put_binary(&payload, nonce, NONCE);
  put_text(&payload, "iat"), put_number(&payload, ms);
  put_text(&payload, "exp"), put_number(&payload, ms + 60000);

  uint8_t signature[64];
  crypto_sign_detached(signature, NULL, room, authenticated(room, COMMAND_TYPE, payload.bytes, payload.size),
                       client->secret);
  put(&envelope, "\0\0\0\0", 4);
  put_byte(&envelope, 0x94), put_byte(&envelope, 1), put_text(&envelope, COMMAND_TYPE);
  put_binary(&envelope, payload.bytes, payload.size);
  put_byte(&envelope, 0x91), put_byte(&envelope, 0x92);
  put_text(&envelope, client->own_id), put_binary(&envelope, signature, sizeof signature);
  const size_t body = envelope.size - 4;
  const uint8_t head[4] = {(uint8_t)(body >> 24), (uint8_t)(body >> 16), (uint8_t)(body >> 8), (uint8_t)body};
  memcpy(envelope.bytes, head, 4);
  send_all(client->fd, envelope.bytes, envelope.size);
}

static void hear(struct client *client, const uint8_t nonce[NONCE])
{
  static uint8_t frame[FRAME], room[FRAME + 256];
  const uint8_t *end = frame + receive_frame(client->fd, frame), *at = frame;
  if (end - at < 2 || *at++ != 0x94 || *at++ != 1)
    die("no envelope of version 1");
  size_t type_size, size, id_size, signature_size;
  const uint8_t *type = take(&at, end, &type_size);
  if (type_size != strlen(REPLY_TYPE) || memcmp(type, REPLY_TYPE, type_size) != 0)
    die("not a reply");
  const uint8_t *payload = take(&at, end, &size);
  if (end - at < 2 || *at++ != 0x91 || *at++ != 0x92)
    die("not one signature");
  const uint8_t *id = take(&at, end, &id_size), *signature = take(&at, end, &signature_size);
  if (id_size != KEY_ID || memcmp(id, client->daemon_id, KEY_ID) != 0 || signature_size != 64 ||
      crypto_sign_verify_detached(signature, room, authenticated(room, REPLY_TYPE, payload, size), client->daemon) != 0)
    die("not signed by the daemon");
  if (!memmem(payload, size, nonce, NONCE) || !memmem(payload, size, "\xa2ok\xc3", 4) ||
      !memmem(payload, size, "\xa5" "cause" "\xa6" "exited", 13))
    die("the run did not end well");
}

static void open_connection(struct client *client, const char *path)
{
  static uint8_t hello[FRAME];
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path)
    die("the socket's path");
  strcpy(address.sun_path, path);
  client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (client->fd < 0 || connect(client->fd, (const struct sockaddr *)&address, sizeof address) < 0)
    die(path);
  receive_frame(client->fd, hello);
}

static uint64_t now_ns(void)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void run(struct client *client)
{
  uint8_t nonce[NONCE];
  randombytes_buf(nonce, NONCE);
  ask(client, nonce);
  hear(client, nonce);
}

int main(int argc, char **argv)
{
  struct client client = {.command = argc == 5 ? argv[4] : NULL};
  uint8_t seed[32], own[32];
  if (argc != 5 || sodium_init() < 0 || sodium_hex2bin(seed, 32, argv[2], strlen(argv[2]), NULL, NULL, NULL) != 0 ||
      sodium_hex2bin(client.daemon, 32, argv[3], strlen(argv[3]), NULL, NULL, NULL) != 0) {
    fprintf(stderr, "usage: client SOCKET SEED-HEX DAEMON-PUBLIC-HEX COMMAND   (a line on stdin: one run, or a number of milliseconds)\n");
    return 2;
  }
  crypto_sign_seed_keypair(own, client.secret, seed);
  name_key(client.own_id, own);
  name_key(client.daemon_id, client.daemon);
  open_connection(&client, argv[1]);

  char *line = NULL;
  size_t room = 0;
  while (getline(&line, &room, stdin) > 0) {
    const uint64_t start = now_ns(), span = strtoull(line, NULL, 10) * 1000000u;
    uint64_t runs = 0;
    do {
      run(&client);
      runs++;
    } while (now_ns() - start < span);
    printf("%llu %llu\n", (unsigned long long)(span ? runs : now_ns() - start),
           (unsigned long long)(span ? now_ns() - start : 0));
    fflush(stdout);
  }
  free(line);
  return 0;
}
