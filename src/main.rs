//! The binary: arguments in, exit code out.

use std::process::ExitCode;

/// Allocation is a quarter of the user time of a proxied request. This allocator hands out first what
/// was freed last, which is still in the cache.
#[cfg(feature = "snmalloc")]
#[global_allocator]
static ALLOCATOR: snmalloc_rs::SnMalloc = snmalloc_rs::SnMalloc;

fn main() -> ExitCode {
    tollgate::cli::main()
}
