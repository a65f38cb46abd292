/* What keeps a pod's namespaces while its containers come and go. */

#include <unistd.h>

int main(void) {
    for (;;) pause();
}
