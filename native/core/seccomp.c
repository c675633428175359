#include "seccomp.h"
typedef int imd_seccomp_empty;
