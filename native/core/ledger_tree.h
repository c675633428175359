/* The Merkle tree of RFC 6962 over 32-byte leaf hashes, as the roots of its perfect subtrees: one for each bit of its size. */
#ifndef IMMURED_LEDGER_TREE_H
#define IMMURED_LEDGER_TREE_H

#include <stddef.h>
#include <stdint.h>

enum { IMD_TREE_LEVELS = 64 };

struct imd_tree {
  uint64_t size;
  uint8_t roots[IMD_TREE_LEVELS][32]; /* the first popcount(size) of them, of the largest subtree first */
};

/* SHA-256(0x00 || line). */
void imd_tree_leaf(uint8_t leaf[32], const uint8_t *line, size_t size);
void imd_tree_node(uint8_t root[32], const uint8_t left[32], const uint8_t right[32]);
void imd_tree_extend(struct imd_tree *tree, const uint8_t *leaves, size_t count);

/* The head of a tree that is not empty. */
void imd_tree_root(const struct imd_tree *tree, uint8_t root[32]);

#endif
