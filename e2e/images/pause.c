// The first process of every pod's sandbox: holds the pod's namespaces and reaps
// orphans, until it is told to end.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void stop(int signal_number) {
  (void)signal_number;
  _exit(0);
}

static void reap(int signal_number) {
  (void)signal_number;
  while (waitpid(-1, 0, WNOHANG) > 0) {
  }
}

int main(void) {
  struct sigaction on_child = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
  signal(SIGINT, stop);
  signal(SIGTERM, stop);
  sigaction(SIGCHLD, &on_child, 0);
  for (;;) {
    pause();
  }
}
