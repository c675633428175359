/* What the broker and the clerk for snapshots say to each other, one packet each: see clerk_snapshot.h. */
#ifndef IMMURED_CLERK_SNAPSHOT_WORDS_H
#define IMMURED_CLERK_SNAPSHOT_WORDS_H

#include <stdint.h>

/* Then the name of an empty directory of the snapshots, "TENANT/NAME", no NUL. */
struct imd_snapshot_ask { uint64_t max_bytes, max_files; };

/* error 0: `places` times struct imd_snapshot_place, each with its target behind it, nothing aligned; else text. */
struct imd_snapshot_answer { int32_t error; uint32_t places; uint64_t skipped; };
struct imd_snapshot_place { uint64_t bytes, files; uint32_t layer, length; };

#endif
