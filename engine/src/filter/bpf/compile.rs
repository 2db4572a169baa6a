//! Compiles pcap filter expressions by libpcap, which is loaded when the first one comes: netdevd starts without it.

#![allow(unsafe_code)] // functions of a C library, found by name

use super::program::{Insn, LoadError, Program};
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Bytes of an expression at most: more than a hundred addresses. The time of libpcap 1.10's optimizer grows with the square and more of the tests: of
/// 4,000 bytes of ports or port ranges it needs 11 to 13 s and 70 MB, of four times as many minutes and gigabytes.
pub(super) const LONGEST: usize = 4 << 10;

/// Bytes of the stack that an expression is compiled on. libpcap calls itself for each test of it, and some that are much shorter than [`LONGEST`] are
/// tens of thousands of tests.
const STACK: usize = 64 << 20;

/// Why there is no program.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// No library.
    #[error(
        "libpcap, which compiles filter expressions, cannot be loaded: install it (Debian's package libpcap0.8)"
    )]
    Missing,
    /// A library without what we need of it.
    #[error("this libpcap cannot be used: {0}")]
    Library(String),
    /// It is not tried.
    #[error(
        "cannot compile a filter expression of {0} bytes: at most {LONGEST} are taken, more than a hundred addresses"
    )]
    TooLong(usize),
    /// Nothing to compile on.
    #[error("no thread to compile a filter expression on: {0}")]
    Thread(std::io::Error),
    /// Not an expression. The words are libpcap's.
    #[error("cannot compile filter expression '{expression}': {why}")]
    Expression {
        /// What was to be compiled.
        expression: String,
        /// libpcap's words.
        why: String,
    },
    /// What libpcap made does not pass our checks.
    #[error("cannot run filter expression '{expression}': {why}")]
    Load {
        /// What was compiled.
        expression: String,
        /// What is wrong with it.
        why: LoadError,
    },
}

/// Names of the library: Debian's, and the usual one.
const NAMES: [&str; 2] = ["libpcap.so.0.8", "libpcap.so.1"];

/// Ethernet, in libpcap's numbers.
const DLT_EN10MB: c_int = 1;
/// The longest frame that an expression may ask about, and what a match returns.
const SNAPLEN: c_int = 262_144;
/// `PCAP_NETMASK_UNKNOWN`: an expression that needs one is refused.
const NO_NETMASK: c_uint = 0xffff_ffff;

/// `struct bpf_program` (`<pcap/bpf.h>`).
#[repr(C)]
struct Compiled {
    len: c_uint,
    insns: *mut Insn,
}

// SAFETY: the types of the functions as <pcap/pcap.h> has them; each call says why it may be made.
type OpenDead = unsafe extern "C" fn(c_int, c_int) -> *mut c_void;
type Compile = unsafe extern "C" fn(*mut c_void, *mut Compiled, *const c_char, c_int, c_uint) -> c_int;
type GetErr = unsafe extern "C" fn(*mut c_void) -> *mut c_char;
type FreeCode = unsafe extern "C" fn(*mut Compiled);
type Close = unsafe extern "C" fn(*mut c_void);
type LibVersion = unsafe extern "C" fn() -> *const c_char;

/// Libraries before 1.8 keep their compiler's state in static variables: one expression at a time.
static ONE: Mutex<()> = Mutex::new(());

/// Whether a library of this description (`pcap_lib_version`) compiles several expressions at once.
pub(super) fn is_reentrant(description: &str) -> bool {
    let number =
        description.split_ascii_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let mut parts = number.unwrap_or_default().split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next(), parts.next()) >= (Some(1), Some(8))
}

/// Compiles a pcap filter expression (`pcap-filter(7)`) for Ethernet frames. May take long, as an expression can name hosts; not for a
/// worker, nor for the control thread.
///
/// # Errors
/// The expression is too long, there is no libpcap, or it refuses the expression.
pub fn compile(expression: &str) -> Result<Program, CompileError> {
    if expression.len() > LONGEST {
        return Err(CompileError::TooLong(expression.len()));
    }
    thread::scope(|scope| {
        let compiler = thread::Builder::new().name("netdevd-pcap".into()).stack_size(STACK);
        let running =
            compiler.spawn_scoped(scope, || compile_here(expression)).map_err(CompileError::Thread)?;
        running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn compile_here(expression: &str) -> Result<Program, CompileError> {
    let refused =
        |why: &str| CompileError::Expression { expression: expression.to_owned(), why: why.to_owned() };
    let text = CString::new(expression).map_err(|_| refused("it holds a NUL character"))?;
    let library = library()?;
    // SAFETY: the function takes nothing, and what it returns is a text that lives as long as the library.
    let version = unsafe { CStr::from_ptr(symbol::<LibVersion>(&library, c"pcap_lib_version")?()) };
    // One that takes long holds up no other where that can be.
    let alone = !is_reentrant(&version.to_string_lossy());
    let _one = alone.then(|| ONE.lock().unwrap_or_else(PoisonError::into_inner));
    // SAFETY: the types are those of the functions in <pcap/pcap.h>, unchanged since libpcap 1.0.
    let (open_dead, compile, get_err, free_code, close) = unsafe {
        (
            symbol::<OpenDead>(&library, c"pcap_open_dead")?,
            symbol::<Compile>(&library, c"pcap_compile")?,
            symbol::<GetErr>(&library, c"pcap_geterr")?,
            symbol::<FreeCode>(&library, c"pcap_freecode")?,
            symbol::<Close>(&library, c"pcap_close")?,
        )
    };
    // SAFETY: pcap_open_dead has no precondition.
    let pcap = NonNull::new(unsafe { open_dead(DLT_EN10MB, SNAPLEN) })
        .ok_or_else(|| CompileError::Library("no memory".into()))?;
    let mut code = Compiled { len: 0, insns: std::ptr::null_mut() };
    // SAFETY: `pcap` is open, `code` is ours, `text` ends with NUL.
    let failed = unsafe { compile(pcap.as_ptr(), &raw mut code, text.as_ptr(), 1, NO_NETMASK) } != 0;
    let result = if failed {
        // SAFETY: `pcap` is open; the text lives in it, and is copied here.
        Err(refused(&unsafe { CStr::from_ptr(get_err(pcap.as_ptr())) }.to_string_lossy()))
    } else {
        let insns: &[Insn] = match NonNull::new(code.insns) {
            // SAFETY: pcap_compile succeeded, so there are `len` instructions, of the layout of `Insn`.
            Some(first) => unsafe { std::slice::from_raw_parts(first.as_ptr(), code.len as usize) },
            None => &[],
        };
        let loaded = Program::load(insns);
        // SAFETY: `code` was filled by pcap_compile, and `insns` is used no more.
        unsafe { free_code(&raw mut code) };
        loaded.map_err(|why| CompileError::Load { expression: expression.to_owned(), why })
    };
    // SAFETY: `pcap` is open, and used no more.
    unsafe { close(pcap.as_ptr()) };
    result
}

fn library() -> Result<Library, CompileError> {
    // SAFETY: the initialisation of libpcap, or of what it is linked with, does nothing that could harm us.
    let loaded = NAMES.iter().find_map(|name| unsafe { Library::new(name) }.ok());
    loaded.ok_or(CompileError::Missing)
}

/// A function of the library.
///
/// # Safety
/// `T` must be the function's type.
unsafe fn symbol<T: Copy>(library: &Library, name: &CStr) -> Result<T, CompileError> {
    // SAFETY: the caller's word on the type; the pointer is used while the library is loaded.
    let found = unsafe { library.get::<T>(name.to_bytes_with_nul()) };
    found.map(|symbol| *symbol).map_err(|error| CompileError::Library(error.to_string()))
}

/// The library, for tests of what only it can tell.
#[cfg(test)]
pub(super) fn tests_library() -> Option<Library> {
    library().ok()
}
