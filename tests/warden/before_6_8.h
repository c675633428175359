/* As it is on a kernel before 6.8: a mount's number is asked for by a bit that none has. Newer headers know the real one. */
#include <sys/stat.h>

#undef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x40000000u
