//! The Hugging Face `tokenizers` crate behind a C interface (tokenizers_c.h). Texts travel as pointer and length,
//! errors as owned strings, and no panic crosses the border.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::slice;
use std::sync::Once;
use tokenizers::Tokenizer;

/// Owned bytes, freed by `mcit_tok_free_bytes`.
#[repr(C)]
pub struct Bytes {
    data: *mut u8,
    length: usize,
}

/// Owned ids, freed by `mcit_tok_free_ids`.
#[repr(C)]
pub struct Ids {
    data: *mut u32,
    length: usize,
}

fn give_bytes(text: String) -> Bytes {
    let boxed = text.into_bytes().into_boxed_slice();
    let length = boxed.len();
    Bytes { data: Box::into_raw(boxed) as *mut u8, length }
}

/// # Safety
/// `data` points to `length` readable bytes; it may be null when `length` is 0.
unsafe fn view<'a, T>(data: *const T, length: usize) -> &'a [T] {
    if length == 0 { &[] } else { slice::from_raw_parts(data, length) }
}

unsafe fn text<'a>(data: *const u8, length: usize) -> Result<&'a str, String> {
    std::str::from_utf8(view(data, length)).map_err(|e| format!("the text is not UTF-8: {e}"))
}

/// Runs `body`; its error or panic goes to `error`, and the answer is then `fallback`.
unsafe fn guarded<T>(error: *mut Bytes, fallback: T, body: impl FnOnce() -> Result<T, String>) -> T {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {}))); // or a panic writes to the standard error as well
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value,
        Ok(Err(message)) => {
            *error = give_bytes(message);
            fallback
        }
        Err(cause) => {
            let cause = match cause.downcast::<String>() {
                Ok(text) => *text,
                Err(other) => other.downcast_ref::<&str>().unwrap_or(&"no reason given").to_string(),
            };
            *error = give_bytes(format!("the tokenizer library failed internally: {cause}"));
            fallback
        }
    }
}

#[no_mangle]
pub unsafe extern "C" fn mcit_tok_new(json: *const u8, length: usize, error: *mut Bytes) -> *mut Tokenizer {
    guarded(error, std::ptr::null_mut(), || {
        let mut tokenizer = Tokenizer::from_bytes(view(json, length)).map_err(|e| e.to_string())?;
        // As in transformers, padding and cutting are the caller's: what the file says of them does not count.
        tokenizer.with_padding(None).with_truncation(None).map_err(|e| e.to_string())?;
        Ok(Box::into_raw(Box::new(tokenizer)))
    })
}

#[no_mangle]
pub unsafe extern "C" fn mcit_tok_free(tokenizer: *mut Tokenizer) {
    if !tokenizer.is_null() {
        drop(Box::from_raw(tokenizer));
    }
}

#[no_mangle]
pub unsafe extern "C" fn mcit_tok_encode(
    tokenizer: *const Tokenizer, data: *const u8, length: usize, add_special: bool, error: *mut Bytes,
) -> Ids {
    guarded(error, Ids { data: std::ptr::null_mut(), length: 0 }, || {
        let encoding = (*tokenizer).encode_fast(text(data, length)?, add_special).map_err(|e| e.to_string())?;
        let ids = encoding.get_ids().to_vec().into_boxed_slice();
        let length = ids.len();
        Ok(Ids { data: Box::into_raw(ids) as *mut u32, length })
    })
}

#[no_mangle]
pub unsafe extern "C" fn mcit_tok_decode(
    tokenizer: *const Tokenizer, ids: *const u32, length: usize, skip_special: bool, error: *mut Bytes,
) -> Bytes {
    guarded(error, Bytes { data: std::ptr::null_mut(), length: 0 }, || {
        let decoded = (*tokenizer).decode(view(ids, length), skip_special).map_err(|e| e.to_string())?;
        Ok(give_bytes(decoded))
    })
}

/// -1 when the vocabulary has no such token.
#[no_mangle]
pub unsafe extern "C" fn mcit_tok_id(tokenizer: *const Tokenizer, data: *const u8, length: usize) -> i64 {
    catch_unwind(AssertUnwindSafe(|| match text(data, length) {
        Ok(token) => (*tokenizer).token_to_id(token).map_or(-1, i64::from),
        Err(_) => -1,
    }))
    .unwrap_or(-1)
}

/// Vocabulary with added tokens.
#[no_mangle]
pub unsafe extern "C" fn mcit_tok_size(tokenizer: *const Tokenizer) -> usize {
    catch_unwind(AssertUnwindSafe(|| (*tokenizer).get_vocab_size(true))).unwrap_or(0)
}

#[no_mangle]
pub unsafe extern "C" fn mcit_tok_free_bytes(bytes: Bytes) {
    if !bytes.data.is_null() {
        drop(Box::from_raw(slice::from_raw_parts_mut(bytes.data, bytes.length) as *mut [u8]));
    }
}

#[no_mangle]
pub unsafe extern "C" fn mcit_tok_free_ids(ids: Ids) {
    if !ids.data.is_null() {
        drop(Box::from_raw(slice::from_raw_parts_mut(ids.data, ids.length) as *mut [u32]));
    }
}
