#include "ledger_tree.h"

#include <string.h>

#include "sha256.h"

void imd_tree_leaf(uint8_t leaf[32], const uint8_t *line, size_t size)
{
  static const uint8_t zero;
  struct sha256 sum;
  sha256_begin(&sum);
  sha256_add(&sum, &zero, 1);
  sha256_add(&sum, line, size);
  sha256_end(&sum, leaf);
}

void imd_tree_node(uint8_t root[32], const uint8_t left[32], const uint8_t right[32])
{
  uint8_t joined[65];
  struct sha256 sum;
  joined[0] = 1;
  memcpy(joined + 1, left, 32);
  memcpy(joined + 33, right, 32);
  sha256_begin(&sum);
  sha256_add(&sum, joined, sizeof joined);
  sha256_end(&sum, root);
}

void imd_tree_extend(struct imd_tree *tree, const uint8_t *leaves, size_t count)
{
  for (; count > 0; count--, leaves += 32) {
    size_t held = (size_t)__builtin_popcountll(tree->size);
    memcpy(tree->roots[held], leaves, 32);
    for (uint64_t carry = tree->size++; carry & 1; carry >>= 1, held--)
      imd_tree_node(tree->roots[held - 1], tree->roots[held - 1], tree->roots[held]);
  }
}

void imd_tree_root(const struct imd_tree *tree, uint8_t root[32])
{
  size_t at = (size_t)__builtin_popcountll(tree->size) - 1;
  memcpy(root, tree->roots[at], 32);
  while (at-- > 0)
    imd_tree_node(root, tree->roots[at], root);
}
