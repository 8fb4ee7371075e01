//! The wall clock of one process, made wrong from outside. Nodes share the machine's clock, and a stock image has no
//! libfaketime; but each process asks for the time in a page of its own, which the kernel maps into it (the vDSO). There
//! `clock_gettime` is replaced by a system call and an addition to `CLOCK_REALTIME`. No other clock, no other process, no
//! file changes; programs that this process starts get a fresh page.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::harness::cluster::LocalCluster;
use crate::harness::wait::await_condition;

const FUNCTION: &[u8] = b"__vdso_clock_gettime\0";
/// Offsets of an ELF file of 64 bits, and of its section headers and symbols.
const MACHINE: usize = 18;
const X86_64: u16 = 62;
const SECTIONS: usize = 40;
const SECTION_SIZE: usize = 58;
const DYNAMIC_SYMBOLS: u32 = 11;
const SYMBOL_SIZE: usize = 24;
/// For the threads of a process to be stopped, outside of the function.
const STOPPED: Duration = Duration::from_secs(10);

/// A process whose clock is wrong.
#[derive(Debug)]
pub struct Wrong {
    memory: File,
    at: u64,
    original: Vec<u8>,
}

/// How `LocalCluster::run` reaches the process: arguments of `process stop` and `process continue` behind the verb.
pub type Target<'a> = &'a [&'a str];

/// Sets the wall clock of a process `seconds` ahead.
///
/// # Errors
/// When the process cannot be stopped, or its page is not as expected; its clock is right then.
pub async fn set(local: &LocalCluster, target: Target<'_>, seconds: i32) -> anyhow::Result<Wrong> {
    let pid = signal(local, "stop", target).await?;
    let changed = change(&pid, seconds).await;
    signal(local, "continue", target).await?;
    changed
}

async fn signal(local: &LocalCluster, verb: &str, target: Target<'_>) -> anyhow::Result<String> {
    let mut args = vec!["process", verb];
    args.extend(target);
    Ok(local.run(&args).await?.trim().to_owned())
}

async fn change(pid: &str, seconds: i32) -> anyhow::Result<Wrong> {
    let (begin, end) = vdso(&fs::read_to_string(format!("/proc/{pid}/maps"))?).context("no vDSO")?;
    let path = format!("/proc/{pid}/mem");
    let memory = OpenOptions::new().read(true).write(true).open(&path).with_context(|| path.clone())?;
    let mut image = vec![0; usize::try_from(end - begin)?];
    memory.read_exact_at(&mut image, begin).with_context(|| format!("reading {path}"))?;
    let code = code(seconds);
    let (offset, size) = function(&image)?;
    ensure!(size >= code.len(), "clock_gettime has {size} bytes, {} are needed", code.len());
    let at = begin + u64::try_from(offset)?;
    let function = at..at + u64::try_from(size)?;
    await_condition("every thread stopped outside of clock_gettime", STOPPED, || async {
        threads(pid)?.iter().try_for_each(|thread| thread.is_outside(&function))
    })
    .await?;
    memory.write_all_at(&code, at).with_context(|| format!("writing {path}"))?;
    Ok(Wrong { memory, at, original: image[offset..offset + code.len()].to_vec() })
}

impl Wrong {
    /// Makes the clock right again. A process that has ended needs nothing.
    pub fn right(self) {
        let _ = self.memory.write_all_at(&self.original, self.at);
    }
}

fn vdso(maps: &str) -> Option<(u64, u64)> {
    let line = maps.lines().find(|line| line.ends_with("[vdso]"))?;
    let (begin, end) = line.split_whitespace().next()?.split_once('-')?;
    Some((u64::from_str_radix(begin, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}

/// `clock_gettime(clock, time)`: the system call, and for `CLOCK_REALTIME` the seconds on top.
fn code(seconds: i32) -> Vec<u8> {
    let mut code = vec![
        0xb8, 0xe4, 0, 0, 0, // mov eax, SYS_clock_gettime
        0x0f, 0x05, // syscall
        0x85, 0xc0, 0x75, 0x0b, // it failed: return
        0x85, 0xff, 0x75, 0x07, // not CLOCK_REALTIME: return
        0x48, 0x81, 0x06, // add qword [rsi], ...
    ];
    code.extend(seconds.to_le_bytes());
    code.push(0xc3); // return
    code
}

/// Offset and length of the function in the image.
fn function(image: &[u8]) -> anyhow::Result<(usize, usize)> {
    ensure!(number::<2>(image, MACHINE)? == u64::from(X86_64), "only written for x86-64");
    let (table, count) = (size(image, SECTIONS)?, number::<2>(image, SECTION_SIZE + 2)?);
    let width = usize::try_from(number::<2>(image, SECTION_SIZE)?)?;
    for index in 0..usize::try_from(count)? {
        let section = table + index * width;
        if number::<4>(image, section + 4)? != u64::from(DYNAMIC_SYMBOLS) {
            continue;
        }
        let names = table + usize::try_from(number::<4>(image, section + 40)?)? * width;
        let names = size(image, names + 24)?;
        let (first, bytes) = (size(image, section + 24)?, size(image, section + 32)?);
        for symbol in (first..first + bytes).step_by(SYMBOL_SIZE) {
            let name = names + usize::try_from(number::<4>(image, symbol)?)?;
            if image.get(name..).is_some_and(|rest| rest.starts_with(FUNCTION)) {
                return Ok((size(image, symbol + 8)?, size(image, symbol + 16)?));
            }
        }
    }
    bail!("the vDSO has no clock_gettime")
}

fn size(image: &[u8], at: usize) -> anyhow::Result<usize> {
    Ok(usize::try_from(number::<8>(image, at)?)?)
}

/// A little-endian number of so many bytes.
fn number<const BYTES: usize>(image: &[u8], at: usize) -> anyhow::Result<u64> {
    let bytes = image.get(at..at + BYTES).context("the vDSO is cut short")?;
    Ok(bytes.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
}

struct Thread {
    /// `T` when stopped.
    state: String,
    /// Last field of `/proc/PID/task/TID/syscall`: where it will go on.
    at: Option<u64>,
}

impl Thread {
    fn is_outside(&self, function: &std::ops::Range<u64>) -> anyhow::Result<()> {
        ensure!(self.state.starts_with('T'), "a thread is in state {:?}", self.state);
        let at = self.at.context("a thread does not tell where it is")?;
        ensure!(!function.contains(&at), "a thread is inside");
        Ok(())
    }
}

fn threads(pid: &str) -> anyhow::Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let dir = entry?.path();
        let stat = fs::read_to_string(dir.join("stat"))?;
        let syscall = fs::read_to_string(dir.join("syscall"))?;
        let state = stat.rsplit(") ").next().unwrap_or_default().to_owned();
        let at = syscall.split_whitespace().next_back().and_then(|at| at.strip_prefix("0x"));
        threads.push(Thread { state, at: at.and_then(|at| u64::from_str_radix(at, 16).ok()) });
    }
    Ok(threads)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::oracle::writer::now_us;

    /// Tells the time whenever it is asked, in microseconds, by `clock_gettime`. Perl belongs to every Debian.
    const TELLS_THE_TIME: &str = "$| = 1; while (<STDIN>) { printf \"%d\\n\", 1e6 * Time::HiRes::clock_gettime(Time::HiRes::CLOCK_REALTIME) }";

    struct Clock(Child);

    impl Clock {
        fn start() -> Clock {
            let mut command = Command::new("perl");
            command.args(["-MTime::HiRes", "-e", TELLS_THE_TIME]);
            Clock(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
        }

        /// Microseconds that it is ahead of this process.
        fn ahead_us(&mut self) -> i64 {
            self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
            let mut told = String::new();
            BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut told).unwrap();
            told.trim().parse::<i64>().unwrap() - now_us()
        }

        fn signal(&self, name: &str) {
            let pid = self.0.id().to_string();
            assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
        }
    }

    impl Drop for Clock {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[tokio::test]
    #[cfg_attr(not(target_arch = "x86_64"), ignore = "the code is for x86-64")]
    async fn one_process_has_another_hour_and_then_the_right_one() {
        const SECOND: i64 = 1_000_000;
        let mut clock = Clock::start();
        assert!(clock.ahead_us().abs() < 5 * SECOND);
        clock.signal("-STOP");
        let wrong = change(&clock.0.id().to_string(), -3600).await.unwrap();
        clock.signal("-CONT");
        assert!((clock.ahead_us() + 3600 * SECOND).abs() < 5 * SECOND);
        wrong.right();
        assert!(clock.ahead_us().abs() < 5 * SECOND);
    }
}
