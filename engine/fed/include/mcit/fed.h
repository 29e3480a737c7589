/* Federated rounds of mcit behind a C interface: libmcit_fed.so, without LibTorch and without a network.
 *
 *   mcit_fed* fed;
 *   mcit_fed_open(toml, "ledger", &fed);          // goes on where the ledger ends
 *   mcit_fed_begin(fed, model, model_bytes);      // once, in a new ledger
 *   loop: mcit_fed_plan, mcit_fed_download for each client, mcit_fed_offer or mcit_fed_decline for each
 * reply, mcit_fed_close until it says something else than "open" mcit_fed_free(fed);
 *
 * Every function returns MCIT_FED_OK or an error; mcit_fed_error() then has the text. No C++ exception leaves
 * the library. Calls on one handle may come from several threads. Set `size` of every struct to its sizeof:
 * a library of another layout refuses it. The settings are in docs/reference/federated.md. */
#ifndef MCIT_FED_H
#define MCIT_FED_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define MCIT_FED_API
#else
#define MCIT_FED_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define MCIT_FED_ABI 1u

typedef struct mcit_fed mcit_fed;

enum mcit_fed_code {
  MCIT_FED_OK = 0,
  MCIT_FED_FAILED = -1,       /* the text says why */
  MCIT_FED_BAD_ARGUMENT = -2, /* a null pointer, or a struct of another size */
  MCIT_FED_TOO_SMALL = -3,    /* the buffer; `needed` says how large it must be */
  MCIT_FED_BUSY = -4          /* another process has the ledger open: try again when it has ended */
};

enum mcit_fed_phase {
  MCIT_FED_NEEDS_MODEL = 0,
  MCIT_FED_IDLE = 1,
  MCIT_FED_COLLECTING = 2,
  MCIT_FED_FINISHED = 3,
  MCIT_FED_ENDED_IN_FAILURE = 4
};

enum mcit_fed_verdict_code {
  MCIT_FED_ACCEPTED = 0,
  MCIT_FED_DUPLICATE = 1,
  MCIT_FED_REJECTED = 2,
  MCIT_FED_STALE = 3,
  MCIT_FED_LATE = 4,
  MCIT_FED_NOT_SAMPLED = 5
};

enum mcit_fed_outcome {
  MCIT_FED_ROUND_OPEN = 0,      /* clients are still training and the deadline is not over */
  MCIT_FED_ROUND_COMMITTED = 1, /* on disk */
  MCIT_FED_ROUND_RETRY = 2,     /* below the quorum: plan again */
  MCIT_FED_ROUND_FAILED = 3     /* the run has failed; `reason` says why */
};

typedef struct {
  uint32_t size;
  const char* id; /* logical id, UTF-8 */
  int64_t examples;
} mcit_fed_client;

typedef struct {
  uint32_t size;
  uint32_t phase;    /* mcit_fed_phase */
  uint32_t round;    /* the next one to commit */
  uint32_t rounds;   /* that the run has */
  char base[65];     /* SHA-256 of the state, or "" */
  char failure[256]; /* of a run that has failed */
} mcit_fed_state;

typedef struct {
  uint32_t size;
  uint32_t round;
  uint32_t attempt;
  double seconds_left;
  size_t clients;         /* who is to train */
  const char* const* ids; /* valid until the next plan on this handle */
  char base[65];
} mcit_fed_plan_t;

typedef struct {
  uint32_t size;
  uint32_t verdict; /* mcit_fed_verdict_code */
  char reason[256];
} mcit_fed_verdict;

typedef struct {
  uint32_t size;
  uint32_t outcome; /* mcit_fed_outcome */
  uint32_t round;
  uint32_t attempts;
  uint32_t used, rejected, missing, late;
  uint64_t bytes_up, bytes_down;
  char before[65], after[65];
  char reason[256];
} mcit_fed_round;

MCIT_FED_API uint32_t mcit_fed_abi(void);
/* What the last call of this thread that did not return MCIT_FED_OK has to say. */
MCIT_FED_API const char* mcit_fed_error(void);

/* toml: the tables [federation] and [aggregate]; ledger: a folder, made if need be. With glibc, blocks that
 * the process frees stay with it, up to 1 GiB: rounds take the same sizes again. */
MCIT_FED_API int mcit_fed_open(const char* toml, const char* ledger, mcit_fed** out);
MCIT_FED_API void mcit_fed_free(mcit_fed* fed);
/* A clock of your own, in seconds that never go back; for tests. */
MCIT_FED_API int mcit_fed_set_clock(mcit_fed* fed, double (*now)(void*), void* context);
MCIT_FED_API int mcit_fed_status(mcit_fed* fed, mcit_fed_state* out);
/* The model before round 1, a safetensors blob. */
MCIT_FED_API int mcit_fed_begin(mcit_fed* fed, const void* blob, size_t bytes);
MCIT_FED_API int mcit_fed_plan(mcit_fed* fed, const mcit_fed_client* online, size_t count,
                               mcit_fed_plan_t* out);
/* What a client starts from. A null buffer asks for the size alone. */
MCIT_FED_API int mcit_fed_download(mcit_fed* fed, const char* client, void* buffer, size_t capacity,
                                   size_t* needed);
MCIT_FED_API int mcit_fed_offer(mcit_fed* fed, const char* client, uint32_t round, const void* blob,
                                size_t bytes, mcit_fed_verdict* out);
/* The client says that it cannot take part, and why; the round does not wait for it. */
MCIT_FED_API int mcit_fed_decline(mcit_fed* fed, const char* client, uint32_t round, const char* reason,
                                  mcit_fed_verdict* out);
MCIT_FED_API int mcit_fed_close(mcit_fed* fed, mcit_fed_round* out);
/* The record of a committed round as JSON, with a NUL at its end. A null buffer asks for the size alone. */
MCIT_FED_API int mcit_fed_record(mcit_fed* fed, uint32_t round, char* buffer, size_t capacity,
                                 size_t* needed);

#ifdef __cplusplus
}
#endif
#endif
