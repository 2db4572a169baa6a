//! Finds libslirp by pkg-config, or says what to install.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "slirp")]
    libslirp();
}

#[cfg(feature = "slirp")]
fn libslirp() {
    // `ffi.rs` names the libraries, so that only `netdevd-user` is linked to them and not who uses the protocol.
    // `resolver.rs` stands before a function of the C library.
    println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol=fopen64");
    let found = pkg_config::Config::new().atleast_version("4.7").cargo_metadata(false).probe("slirp");
    match found {
        Ok(library) => {
            for path in library.link_paths {
                println!("cargo:rustc-link-search=native={}", path.display());
            }
        }
        Err(why) => {
            eprintln!("\nlibslirp 4.7 or newer was not found: the user netdev needs it.");
            eprintln!("  Debian, Ubuntu:  apt-get install libslirp-dev libglib2.0-dev pkg-config");
            eprintln!(
                "  without it:      cargo build -p control --bins   (no netdevd-user, so no user netdev)"
            );
            eprintln!("                   cargo build -p usernet --no-default-features\n");
            eprintln!("{why}");
            std::process::exit(1);
        }
    }
}
