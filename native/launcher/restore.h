/*
 * Saved places (clerk_snapshot.h), begun with. A tmpfs's, and a layered root's, lie below a layer and are shared by all that
 * began with them; a captured directory's is copied, as a change set is what one upper directory holds.
 */
#ifndef IMMURED_RESTORE_H
#define IMMURED_RESTORE_H

#include "cell.h"
#include "error.h"
#include "peer.h"
#include "places.h"
#include "run.h"

/* Whether some other step makes the layer that this RESTORE's target is: then it has no place of its own. */
bool restore_is_into_layer(const struct run *run, const char *target);

/* What the plan restores at `target`, or NULL. */
const struct source *restore_find(const struct run *run, const struct sources *sources, const char *target);

/*
 * If the plan restores `target`, the layer's upper directory, empty and not mounted yet, gets a copy of what was saved of one.
 * `layer->stage` holds it, and `layer->made_ns` is then the saved one's. By a child, within open_timeout_ms, so that a kill is
 * heard meanwhile. Fails with IMD_STAGE_LAYER, _DEADLINE, _KILLED.
 */
int restore_into_layer(const struct cell *cell, const struct run *run, const struct sources *sources,
                       struct place *layer, uint64_t size, uint64_t inodes, struct imd_error *err);

#endif
