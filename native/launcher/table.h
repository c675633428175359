/* Things found by a number that is never used twice: connections and runs. The table owns none of them. */
#ifndef IMMURED_TABLE_H
#define IMMURED_TABLE_H

#include <stdint.h>

enum { IMD_TABLE_BUCKETS = 4096 };

struct imd_node { uint64_t key; struct imd_node *next; };
struct imd_table { struct imd_node *buckets[IMD_TABLE_BUCKETS]; uint32_t count; };

struct imd_node *imd_table_find(const struct imd_table *table, uint64_t key);
void imd_table_insert(struct imd_table *table, struct imd_node *node);   /* its key is not in the table */
void imd_table_remove(struct imd_table *table, struct imd_node *node);   /* it is in the table */

#endif
