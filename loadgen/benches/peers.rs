//! `cargo bench -p apogee-loadgen --bench peers`: Apogee beside Apache RocketMQ and rocketmq-rust; see `docs/peers.md`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use apogee_loadgen::peers::bench::{self, Defaults, Options};
use apogee_loadgen::stop::StopFlag;
use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};

fn main() -> ExitCode {
    apogee_loadgen::driver::early_init();
    let options = Options::parse();
    if !options.bench {
        // `cargo test --benches` starts it too.
        println!("this takes minutes and both of two CPUs; `cargo bench` starts it");
        return ExitCode::SUCCESS;
    }
    // The first Ctrl-C ends the bench with a report of what there is, the second ends the process; brokers end with it.
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, flag.clone())
            .expect("a signal that may be handled");
        signal_hook::flag::register(signal, flag.clone()).expect("a signal that may be handled");
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let defaults =
        Defaults { work: target.join("peers"), apogee: target.with_file_name("release").join("apogee") };
    match bench::run(options, defaults, &StopFlag::new(flag)) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
