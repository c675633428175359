/* As it is on a kernel before 6.5: who connected is asked for by an option that none has. Newer headers know the real one. */
#include <sys/socket.h>

#undef SO_PEERPIDFD
#define SO_PEERPIDFD 9999
