//! A program of a broker: started on the CPUs it may use, ended with its owner.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::usage::{self, CpuTime, Memory};

/// Bytes of a log that an error quotes.
const LOG_TAIL_BYTES: usize = 2_000;

/// What is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// "broker" or "namesrv"; its log has this name.
    pub role: &'static str,
    pub program: OsString,
    pub args: Vec<OsString>,
    pub env: Vec<(&'static str, OsString)>,
    pub folder: PathBuf,
}

impl Launch {
    /// As one would type it.
    pub fn line(&self) -> String {
        let env = self.env.iter().map(|(name, value)| format!("{name}={} ", value.display()));
        let words = std::iter::once(&self.program).chain(&self.args).map(|word| word.display().to_string());
        env.collect::<String>() + &words.collect::<Vec<_>>().join(" ")
    }
}

/// A running program. Dropping it kills it: what it has stored is of no use to anybody.
#[derive(Debug)]
pub struct Process {
    role: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// All threads of the program run on `cpus` only. It ends at the latest with the thread that starts it.
    pub fn start(launch: &Launch, cpus: &[usize]) -> io::Result<Process> {
        let log = launch.folder.join(format!("{}.log", launch.role));
        let out = File::create(&log)?;
        let mut command = Command::new(&launch.program);
        command.args(&launch.args).envs(launch.env.iter().cloned()).current_dir(&launch.folder);
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        // Of its own, so that Ctrl-C on the terminal reaches the bench alone, which then ends its brokers in order.
        command.process_group(0);
        let set = cpu_set(cpus);
        // SAFETY: runs between fork and exec, where only async-signal-safe calls are allowed: two plain system calls on
        // values made before the fork, no allocation, no lock.
        unsafe {
            command.pre_exec(move || {
                if libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) != 0 {
                    return Err(io::Error::last_os_error());
                }
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        Ok(Process { role: launch.role, child: command.spawn()?, log })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    pub fn cpu_time(&self) -> io::Result<CpuTime> {
        usage::cpu_time(&self.id().to_string())
    }

    pub fn memory(&self) -> io::Result<Memory> {
        usage::memory(self.id())
    }

    pub fn role(&self) -> &'static str {
        self.role
    }

    /// The end of what it has printed.
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cpu_set(cpus: &[usize]) -> libc::cpu_set_t {
    // SAFETY: a C struct of integers, for which all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in cpus.iter().filter(|cpu| **cpu < libc::CPU_SETSIZE as usize) {
        // SAFETY: the number was checked to lie in the set.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
    }
    set
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_TAIL_BYTES)..]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn shell(folder: &Path, script: &str) -> Launch {
        Launch {
            role: "broker",
            program: "sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![("WORD", "said".into())],
            folder: folder.to_owned(),
        }
    }

    #[test]
    fn a_program_runs_on_its_cpus_and_its_output_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let cpu = crate::driver::allowed_cpus()[0];
        let script = "echo $WORD; grep Cpus_allowed_list /proc/self/status; exit 3";
        let mut process = Process::start(&shell(folder.path(), script), &[cpu]).unwrap();
        let since = Instant::now();
        let status = loop {
            if let Some(status) = process.ended().unwrap() {
                break status;
            }
            assert!(since.elapsed() < Duration::from_secs(20));
            crate::peers::tools::pause(Duration::from_millis(5));
        };
        assert_eq!(status.code(), Some(3));
        assert_eq!(process.log_tail(), format!("said\nCpus_allowed_list:\t{cpu}"));
    }

    #[test]
    fn a_dropped_program_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let process =
            Process::start(&shell(folder.path(), "sleep 600"), &crate::driver::allowed_cpus()).unwrap();
        let id = process.id();
        assert!(process.cpu_time().is_ok() && process.memory().unwrap().resident > 0);
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        assert_eq!(shell(Path::new("/tmp"), "true").line(), "WORD=said sh -c true");
    }
}
