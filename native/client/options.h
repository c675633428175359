/* The words of `immure run`. options.def lists what is known; all else is the Python command line's. */
#ifndef IMMURE_OPTIONS_H
#define IMMURE_OPTIONS_H

#include "bytes.h"

/* What an option was given, in order. */
struct imc_words {
  const char **at;
  size_t count;
};

/* The names under which a command may be given. */
enum imc_name { IMC_PERSONA, IMC_TENANT, IMC_SUB, IMC_PROJECT, IMC_SESSION, IMC_NAMES };

struct imc_options {
  bool quiet, strict;
  const char *socket, *key, *daemon_key, *state;
  const char *manifest, *class_name, *rootfs, *cwd, *network;
  const char *memory, *swap, *cpus, *wall, *cpu_time, *disk, *output, *cores;
  uint64_t pids, files, pin;       /* 0: not given */
  const char *names[IMC_NAMES];
  struct imc_words ro, rw, tmpfs, env, settings;
  char *const *command;
  size_t command_count;
};

/* Reads the words behind `run`. False: something here is for the Python command line to serve, or to refuse. */
bool imc_read_options(struct imc_options *options, char *const *words, size_t count);

#endif
