#include "table.h"

#include <stddef.h>

static uint32_t bucket_of(uint64_t key)
{
  return (uint32_t)((key * 0x9e3779b97f4a7c15u) >> 52);
}

struct imd_node *imd_table_find(const struct imd_table *table, uint64_t key)
{
  struct imd_node *node = table->buckets[bucket_of(key)];
  while (node && node->key != key)
    node = node->next;
  return node;
}

void imd_table_insert(struct imd_table *table, struct imd_node *node)
{
  struct imd_node **bucket = &table->buckets[bucket_of(node->key)];
  node->next = *bucket;
  *bucket = node;
  table->count++;
}

void imd_table_remove(struct imd_table *table, struct imd_node *node)
{
  struct imd_node **link = &table->buckets[bucket_of(node->key)];
  while (*link != node)
    link = &(*link)->next;
  *link = node->next;
  table->count--;
}
