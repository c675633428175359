#include "order.h"

#include "say.h"
#include "text.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { MAX_WORDS = 4096 };         /* docs/protocol.md; and far from what one value may hold */

/* --- env --- */

/* Every one of them is looked at, the overridden too: Python names the first that is not there. */
static bool env_is_there(const struct imc_words *env)
{
  for (size_t i = 0; i < env->count; i++) {
    char name[4096];
    const size_t length = strcspn(env->at[i], "=");
    if (length == 0 || length >= sizeof name)
      return false;
    memcpy(name, env->at[i], length);
    name[length] = '\0';
    if (env->at[i][length] == '\0' && !getenv(name))
      return false;
  }
  return true;
}

/* Which of the --env sets the variable that `index` names: in a map the last value stands at the first one's place. */
static bool is_repeated(const struct imc_words *env, size_t index, size_t *last)
{
  const size_t length = strcspn(env->at[index], "=");
  *last = index;
  for (size_t i = 0; i < env->count; i++) {
    if (strcspn(env->at[i], "=") != length || memcmp(env->at[i], env->at[index], length) != 0)
      continue;
    if (i < index)
      return true;
    *last = i;
  }
  return false;
}

static bool put_env(struct imc_pack *pack, const struct imc_words *env)
{
  size_t names = 0, last;
  for (size_t i = 0; i < env->count; i++)
    names += !is_repeated(env, i, &last);
  imc_put_str(pack, "env");
  imc_put_map(pack, names);
  for (size_t i = 0; i < env->count; i++) {
    if (is_repeated(env, i, &last))
      continue;
    const size_t length = strcspn(env->at[i], "=");
    char name[4096];
    if (length == 0 || length >= sizeof name)
      return false;
    memcpy(name, env->at[i], length);
    name[length] = '\0';
    const char *const value = env->at[last][length] == '=' ? env->at[last] + length + 1 : getenv(name);
    if (!value || !imc_is_utf8(imc_text(name)))
      return false;
    imc_put_str(pack, name);
    imc_put_text(pack, value);
  }
  return true;
}

/* --- parameters --- */

enum { MAX_NAME = 64 };            /* twice what a manifest may declare */

/* Each is NAME=VALUE of printable ASCII, no name twice. All else is Python's to take, or to refuse. */
static bool settings_are_plain(const struct imc_words *settings)
{
  for (size_t i = 0; i < settings->count; i++) {
    const char *const text = settings->at[i];
    const size_t length = strcspn(text, "=");
    if (length == 0 || length >= MAX_NAME || text[length] == '\0')
      return false;
    for (const char *c = text; *c; c++) {
      if (*c < ' ' || *c > '~')
        return false;
    }
    for (size_t k = 0; k < i; k++) {
      if (strncmp(settings->at[k], text, length + 1) == 0)
        return false;
    }
  }
  return true;
}

static void put_settings(struct imc_pack *pack, const struct imc_words *settings)
{
  imc_put_str(pack, "parameters");
  imc_put_map(pack, settings->count);
  for (size_t i = 0; i < settings->count; i++) {
    const size_t length = strcspn(settings->at[i], "=");
    char name[MAX_NAME];
    memcpy(name, settings->at[i], length);
    name[length] = '\0';
    imc_put_str(pack, name);
    imc_put_str(pack, settings->at[i] + length + 1);
  }
}

/* --- manifest and limits --- */

static size_t count_limits(const struct imc_options *o)
{
  return (o->memory != NULL) + (o->swap != NULL) + (o->cpus != NULL) + (o->pids > 0) + (o->wall != NULL) + (o->cpu_time != NULL) +
         (o->disk != NULL) + (o->files > 0) + (o->output != NULL) + (o->cores != NULL) +
         (o->pin > 0) + o->strict;
}

static void put_limit(struct imc_pack *pack, const char *name, const char *value)
{
  if (value) {
    imc_put_str(pack, name);
    imc_put_text(pack, value);
  }
}

static void put_count(struct imc_pack *pack, const char *name, uint64_t value)
{
  if (value > 0) {
    imc_put_str(pack, name);
    imc_put_number(pack, value);
  }
}

static void put_limits(struct imc_pack *pack, const struct imc_options *o)
{
  imc_put_str(pack, "limits");
  imc_put_map(pack, count_limits(o));
  put_limit(pack, "memory", o->memory);
  put_limit(pack, "swap", o->swap);
  put_limit(pack, "cpus", o->cpus);
  put_count(pack, "pids", o->pids);
  put_limit(pack, "wall", o->wall);
  put_limit(pack, "cpu_time", o->cpu_time);
  put_limit(pack, "disk", o->disk);
  put_count(pack, "files", o->files);
  put_limit(pack, "output", o->output);
  put_limit(pack, "cores", o->cores);
  put_count(pack, "pin", o->pin);
  if (o->strict) {
    imc_put_str(pack, "strict");
    imc_put_true(pack);
  }
}

static void put_bounds(struct imc_pack *pack, const char *name, const struct imc_bound *bounds, size_t count)
{
  if (count == 0)
    return;
  imc_put_str(pack, name);
  imc_put_array(pack, count);
  for (size_t i = 0; i < count; i++) {
    if (strcmp(bounds[i].source, bounds[i].target) == 0) {
      imc_put_text(pack, bounds[i].source);
      continue;
    }
    imc_put_map(pack, 2);
    imc_put_str(pack, "path");
    imc_put_text(pack, bounds[i].source);
    imc_put_str(pack, "target");
    imc_put_text(pack, bounds[i].target);
  }
}

static bool put_path(struct imc_pack *pack, const char *here, const char *path)
{
  char made[PATH_MAX];
  if (!imc_absolute(here, path, made))
    return false;
  imc_put_text(pack, made);
  return true;
}

static bool put_filesystem(struct imc_pack *pack, const struct imc_order *order, const char *here)
{
  const struct imc_options *const o = order->options;
  imc_put_str(pack, "filesystem");
  imc_put_map(pack, (size_t)(order->readable > 0) + (order->writable > 0) + (o->tmpfs.count > 0) + (o->rootfs != NULL));
  put_bounds(pack, "read", order->bounds, order->readable);
  put_bounds(pack, "write", order->bounds + order->readable, order->writable);
  if (o->tmpfs.count > 0) {
    imc_put_str(pack, "tmpfs");
    imc_put_array(pack, o->tmpfs.count);
    for (size_t i = 0; i < o->tmpfs.count; i++) {
      if (!put_path(pack, here, o->tmpfs.at[i]))
        return false;
    }
  }
  if (!o->rootfs)
    return true;
  imc_put_str(pack, "root");
  return put_path(pack, here, o->rootfs);
}

static bool put_manifest(struct imc_pack *pack, const struct imc_order *order, const char *here)
{
  const struct imc_options *const o = order->options;
  const bool limits = count_limits(o) > 0;
  const bool filesystem = order->readable + order->writable + o->tmpfs.count > 0 || o->rootfs;
  imc_put_str(pack, "manifest");
  imc_put_map(pack, 3 + (size_t)filesystem + limits + (o->network != NULL));
  imc_put_str(pack, "schema");
  imc_put_number(pack, 1);
  imc_put_str(pack, "name");
  imc_put_str(pack, "command-line");
  imc_put_str(pack, "class");
  imc_put_str(pack, o->class_name ? o->class_name : "default");
  if (filesystem && !put_filesystem(pack, order, here))
    return false;
  if (limits)
    put_limits(pack, o);
  if (o->network) {
    imc_put_str(pack, "network");
    imc_put_map(pack, 1);
    imc_put_str(pack, "mode");
    imc_put_str(pack, o->network);
  }
  return true;
}

/* --- the whole --- */

static bool is_digest(const char *manifest)
{
  return strncmp(manifest, "sha256:", 7) == 0 && strspn(manifest + 7, "0123456789abcdef") == 64 && manifest[71] == '\0';
}

bool imc_make_order(struct imc_order *order, const struct imc_options *options, const char *here)
{
  *order = (struct imc_order){.options = options, .readable = options->ro.count, .writable = options->rw.count};
  const size_t count = order->readable + order->writable;
  if (!env_is_there(&options->env) || !settings_are_plain(&options->settings))
    return false;
  if (options->class_name && (options->manifest || !imc_is_utf8(imc_text(options->class_name))))
    return false;
  if (options->command_count > MAX_WORDS || count + options->env.count + options->tmpfs.count > MAX_WORDS)
    return false;
  if (options->manifest &&
      (!is_digest(options->manifest) || count + options->tmpfs.count > 0 || options->rootfs || options->network))
    return false;                  /* a file, TOML, or what a loaded manifest does not take */
  order->bounds = calloc(count + 1, sizeof *order->bounds);   /* lives as long as the process */
  if (!order->bounds)
    return false;
  for (size_t i = 0; i < count; i++) {
    const char *const text = i < order->readable ? options->ro.at[i] : options->rw.at[i - order->readable];
    if (!imc_read_bound(here, text, &order->bounds[i]))
      return false;
  }
  char seen[PATH_MAX];
  if (!imc_inside(here, order->bounds, count, seen, &order->has_cwd))
    return false;
  if (!options->cwd)
    return !order->has_cwd || strcpy(order->cwd, seen);
  const char *const base = order->has_cwd ? seen : here;
  order->has_cwd = true;
  if (options->cwd[0] != '/')
    return imc_absolute(base, options->cwd, order->cwd);
  return strlen(options->cwd) < sizeof order->cwd && strcpy(order->cwd, options->cwd);
}

bool imc_prepare_writable(const struct imc_order *order)
{
  struct stat found;
  for (size_t i = 0; i < order->writable; i++) {
    const char *const source = order->bounds[order->readable + i].source;
    if (geteuid() == 0 && stat(source, &found) < 0)
      return false;
    if (mkdir(source, 0777) < 0) {
      if (errno != EEXIST && stat(source, &found) < 0)
        return false;
    } else if (!order->options->quiet) {
      imc_note((const struct imc_bytes[]){imc_text("made "), imc_text(source)}, 2);
    }
  }
  return true;
}

bool imc_put_arguments(struct imc_pack *pack, const struct imc_order *order)
{
  const struct imc_options *const o = order->options;
  char here[PATH_MAX];
  const bool limits = count_limits(o) > 0;
  const bool inline_manifest =
      !o->manifest && (limits || order->readable + order->writable + o->tmpfs.count > 0 || o->rootfs || o->network ||
                       o->class_name);
  if (!getcwd(here, sizeof here))
    return false;
  imc_put_map(pack, 2 + (size_t)(o->manifest || inline_manifest) + (o->settings.count > 0) + (o->env.count > 0) +
                        order->has_cwd + (o->manifest && limits) + order->no_input);
  imc_put_str(pack, "argv");
  imc_put_array(pack, o->command_count);
  for (size_t i = 0; i < o->command_count; i++)
    imc_put_text(pack, o->command[i]);
  if (o->manifest) {
    imc_put_str(pack, "manifest");
    imc_put_str(pack, o->manifest);
  } else if (inline_manifest && !put_manifest(pack, order, here)) {
    return false;
  }
  if (o->settings.count > 0)
    put_settings(pack, &o->settings);
  if (o->env.count > 0 && !put_env(pack, &o->env))
    return false;
  if (order->has_cwd) {
    imc_put_str(pack, "cwd");
    imc_put_text(pack, order->cwd);
  }
  if (o->manifest && limits)
    put_limits(pack, o);
  if (order->no_input) {
    imc_put_str(pack, "stdin");
    imc_put_bin(pack, "", 0);
  }
  imc_put_str(pack, "stream");
  imc_put_true(pack);
  return !pack->full;
}
