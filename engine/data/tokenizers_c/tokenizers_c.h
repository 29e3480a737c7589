#pragma once
/* C interface of the Rust library beside this file. Nothing is NUL-terminated. On failure `error` owns a message and
 * the answer is empty. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mcit_tok mcit_tok;
typedef struct {
  uint8_t* data;
  size_t length;
} mcit_tok_bytes;
typedef struct {
  uint32_t* data;
  size_t length;
} mcit_tok_ids;

mcit_tok* mcit_tok_new(const uint8_t* json, size_t length, mcit_tok_bytes* error);
void mcit_tok_free(mcit_tok* tokenizer);
mcit_tok_ids mcit_tok_encode(const mcit_tok* tokenizer, const uint8_t* text, size_t length, bool add_special, mcit_tok_bytes* error);
mcit_tok_bytes mcit_tok_decode(const mcit_tok* tokenizer, const uint32_t* ids, size_t length, bool skip_special, mcit_tok_bytes* error);
int64_t mcit_tok_id(const mcit_tok* tokenizer, const uint8_t* text, size_t length);
size_t mcit_tok_size(const mcit_tok* tokenizer);
void mcit_tok_free_bytes(mcit_tok_bytes bytes);
void mcit_tok_free_ids(mcit_tok_ids ids);

#ifdef __cplusplus
}
#endif
