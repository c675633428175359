"""An image with a program that works in its own root, and says what is there: for layered roots, where no shell is."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from immured.client.sandbox import Sandbox
from immured.client.throwaway import ThrowawayDaemon
from tests.patience import PATIENCE_S
from tests.storage.oci import Entry, make_layout

__all__ = ["Operation", "do", "make_image", "manifest_of", "tree"]

Operation = tuple[str, str, str]
"""What, a path, a second path or text."""

# `tree` reads directories by readdir alone: a whiteout that shows is a name that cannot be looked up.
PROGRAM = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
static int away(const char *path, const struct stat *st, int kind, struct FTW *at) {
  (void)st, (void)kind, (void)at;
  return remove(path);
}
static int put(const char *path, const char *text) {
  const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK, 0644);
  if (fd < 0) return -1;
  const ssize_t size = write(fd, text, strlen(text));
  close(fd);
  return size == (ssize_t)strlen(text) ? 0 : -1;
}
static void tree(const char *path) {
  char text[4096], below[4096];
  struct stat st;
  if (lstat(path, &st) < 0) { printf("%s ? %s\n", path, strerror(errno)); return; }
  printf("%s %o", path, st.st_mode & (S_ISLNK(st.st_mode) ? S_IFMT : ~0u));
  if (S_ISREG(st.st_mode)) {
    const int fd = open(path, O_RDONLY);
    const ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    text[size < 0 ? 0 : size] = 0;
    close(fd);
    printf(" %s", size < 0 ? "unreadable" : text);
  }
  if (S_ISLNK(st.st_mode)) printf(" -> %.*s", (int)readlink(path, text, sizeof text), text);
  printf("\n");
  DIR *entries = S_ISDIR(st.st_mode) ? opendir(path) : NULL;
  for (struct dirent *entry; entries && (entry = readdir(entries));) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
    tree(below);
  }
  if (entries) closedir(entries);
}
int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "tree") == 0) return tree(argv[2]), 0;
  for (int i = 1; i + 2 < argc; i += 3) {
    const char *what = argv[i], *a = argv[i + 1], *b = argv[i + 2];
    errno = 0;
    const int result = strcmp(what, "write") == 0     ? put(a, b)
                       : strcmp(what, "mkdir") == 0   ? mkdir(a, 0755)
                       : strcmp(what, "chmod") == 0   ? chmod(a, (mode_t)strtoul(b, NULL, 8))
                       : strcmp(what, "clear") == 0   ? nftw(a, away, 16, FTW_DEPTH | FTW_PHYS)
                       : strcmp(what, "rename") == 0  ? rename(a, b)
                       : strcmp(what, "link") == 0    ? link(a, b)
                       : strcmp(what, "symlink") == 0 ? symlink(b, a)
                       : strcmp(what, "fill") == 0    ? 0
                                                      : -1;
    for (int n = 0; strcmp(what, "fill") == 0 && n < atoi(b); n++) {
      char name[4096];
      if (n % 100 == 0) { snprintf(name, sizeof name, "%s/%d", a, n / 100); mkdir(name, 0755); }
      snprintf(name, sizeof name, "%s/%d/%d", a, n / 100, n);
      if (put(name, name) < 0) { perror(name); return 1; }
    }
    printf("%s\n", result == 0 ? "done" : strerror(errno));
  }
  return 0;
}
"""


def make_image(daemon: ThrowawayDaemon, scratch: Path, files: Mapping[str, str | None]) -> str:
    """An image with the program at /bin/tool and the payload's own `files` (None: a directory); its digest."""
    (scratch / "tool.c").write_text(PROGRAM)
    subprocess.run(
        ["gcc", "-O1", "-static", "-o", scratch / "tool", scratch / "tool.c"], check=True, timeout=PATIENCE_S
    )
    entries: dict[str, Entry] = {
        "bin": (0, 0, 0o755, None),
        "bin/tool": (0, 0, 0o755, (scratch / "tool").read_bytes()),
    }
    for path, text in files.items():
        entries[path] = (1000, 1000, 0o755 if text is None else 0o644, None if text is None else text.encode())
    digest = make_layout(scratch / "oci", entries)
    daemon.immure("image", "import", f"{scratch / 'oci'}:test", "--state", str(daemon.state))
    return digest


def manifest_of(image: str) -> dict[str, Any]:
    """A layered root of that image."""
    return {
        "schema": 1,
        "filesystem": {"root": f"image:{image}", "root_layer": True},
        "command": {"cwd": "/"},
    }


def do(sandbox: Sandbox, operations: Iterable[Operation]) -> list[str]:
    """What became of each: "done", or the error's text."""
    result = sandbox.exec(["/bin/tool", *(word for operation in operations for word in operation)], cwd="/")
    assert result.exit_code == 0, result
    return result.stdout.decode().splitlines()


def tree(sandbox: Sandbox, path: str) -> list[str]:
    """Every name below, with type, mode and contents, as readdir and lstat say."""
    result = sandbox.exec(["/bin/tool", "tree", path], cwd="/")
    assert result.exit_code == 0, result
    return sorted(result.stdout.decode().splitlines())
