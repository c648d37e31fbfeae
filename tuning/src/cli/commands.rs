//! What each command does.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use apogee_tuning::{
    Applied, CommandProbe, Details, DiskPlan, DiskProbe, DiskProfile, Facts, Journal, Machine, NetProbe, Nic,
    Probe, Profile, ProfileRequest, Report, Settings, Undone, Verdict, Wanted, apply, derive, drift, look,
    measure_disk, measure_net, nics, script, serve_net, table, tuners, undo, verify, wanted,
};

use super::{Command, Data, JournalArgs, MachineArgs, Only};

/// Distance between the ports of two shards, the broker's.
const PORT_STRIDE: u16 = 10;

/// Longest file of disk measurements that is read.
const DISK_FILE_BYTES_MAX: u64 = 1 << 20;

/// Carries it out; whether all is as wanted.
pub(super) fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Probe { data, json } => probe(&data, json),
        Command::Disk { dir, seconds, file_mib, json, out } => {
            let plan =
                DiskPlan { time_per_row: Duration::from_secs_f64(seconds), file_bytes: file_mib << 20 };
            disk(&dir, &plan, json, out.as_deref())
        }
        Command::Net { serve: Some(address), .. } => {
            serve_net(address, |address| println!("echoing at {address}; Ctrl-C ends it"))?;
            Ok(true)
        }
        Command::Net { serve: None, peer, seconds, json } => {
            let rows = measure_net(peer, Duration::from_secs_f64(seconds))?;
            if json {
                print_json(&rows)?
            } else {
                println!("{}", table::net(&rows))
            }
            Ok(true)
        }
        Command::Profile { machine, out } => {
            let world = World::look_at(&machine)?;
            println!("{}", table::profile(&world.profile));
            if let Some(out) = out {
                write(&out, &world.profile.to_toml())?;
                println!(
                    "written to {}; the broker takes it with --profile {}",
                    out.display(),
                    out.display()
                );
            }
            Ok(true)
        }
        Command::Check { machine, only, all, json } => check(&machine, &only, all, json),
        Command::Apply { machine, only, journal, dry_run, script } => {
            change(&machine, &only, &journal, dry_run, script)
        }
        Command::Undo { journal, force } => take_back(&journal, force),
        Command::Verify { machine, only, journal, pairs, seconds, measure, figure, json } => {
            let own = match (measure, figure) {
                (Some(command), Some(figure)) => Some(CommandProbe::new(&command, &figure)?),
                _ => None,
            };
            let seconds = Duration::from_secs_f64(seconds);
            verify_all(&machine, &only, &journal, Rounds { pairs, seconds, own }, json)
        }
    }
}

/// The machine as one command sees it.
struct World {
    settings: Settings,
    facts: Facts,
    nics: Vec<Nic>,
    profile: Profile,
    data: PathBuf,
}

impl World {
    fn look_at(args: &MachineArgs) -> anyhow::Result<World> {
        let settings = Settings::machine();
        let facts = Facts::collect(settings.roots(), &args.data.data)?;
        let nics = nics(settings.roots());
        let profile = match &args.profile {
            Some(path) => Profile::read(path, &facts.cpus.allowed)?,
            None => {
                let request = ProfileRequest {
                    goal: args.goal,
                    shards: args.shards,
                    base_port: args.base_port,
                    port_stride: PORT_STRIDE,
                    disk: args.disk.as_deref().map(read_disk).transpose()?,
                };
                derive(&settings, &facts, &nics, &request)?
            }
        };
        Ok(World { settings, facts, nics, profile, data: args.data.data.clone() })
    }

    fn reports(&self, only: &Only) -> anyhow::Result<Vec<Report>> {
        if let Some(unknown) =
            only.only.iter().find(|name| tuners().iter().all(|tuner| tuner.name() != **name))
        {
            let known: Vec<&str> = tuners().iter().map(|tuner| tuner.name()).collect();
            bail!("{unknown:?} is no knob; known are {}", known.join(", "));
        }
        let World { settings, facts, nics, profile, .. } = self;
        Ok(look(&Machine { settings, facts, nics, profile }, &only.only))
    }
}

fn read_disk(path: &Path) -> anyhow::Result<DiskProfile> {
    let name = || format!("the disk measurements {}", path.display());
    if fs::metadata(path).with_context(name)?.len() > DISK_FILE_BYTES_MAX {
        bail!("{} have more than {DISK_FILE_BYTES_MAX} bytes: they are not what `disk --out` writes", name());
    }
    serde_json::from_str(&fs::read_to_string(path).with_context(name)?).with_context(name)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

fn probe(data: &Data, json: bool) -> anyhow::Result<bool> {
    let settings = Settings::machine();
    let facts = Facts::collect(settings.roots(), &data.data)?;
    let nics = nics(settings.roots());
    let details = Details::collect(&settings, &facts, &nics);
    if json {
        let mut all = serde_json::to_value(&facts)?;
        all["nics"] = serde_json::to_value(&nics)?;
        all["details"] = serde_json::to_value(&details)?;
        print_json(&all)?;
        return Ok(true);
    }
    println!("{facts}");
    for nic in &nics {
        println!("{:<12}{nic}", "network");
    }
    println!("{details}");
    if let Some(host) = &facts.kernel.virtualised_by {
        println!(
            "\nThis is a virtual machine ({host}): cpu frequency, idle states, caches of the disk, and what the network \
             really has are the host's, and are not seen here."
        );
    }
    if let Some(quota) = facts.limits.cpu_quota {
        println!(
            "\nA quota of {quota:.2} cpus holds: a thread beyond it is stopped in the middle of each period, so latency \
             figures mean little here."
        );
    }
    Ok(true)
}

fn disk(dir: &Path, plan: &DiskPlan, json: bool, out: Option<&Path>) -> anyhow::Result<bool> {
    let facts = Facts::collect(Settings::machine().roots(), dir)?;
    let device = facts.data.device.map(|device| device.name);
    let measured = measure_disk(dir, device, plan, |next| eprintln!("{next}"))?;
    if let Some(out) = out {
        write(out, &serde_json::to_string_pretty(&measured)?)?;
    }
    if json {
        print_json(&measured)?
    } else {
        println!("{}", table::disk(&measured))
    }
    Ok(true)
}

fn check(args: &MachineArgs, only: &Only, all: bool, json: bool) -> anyhow::Result<bool> {
    let world = World::look_at(args)?;
    let reports = world.reports(only)?;
    let is_right = |verdict: &Verdict| matches!(verdict, Verdict::Right | Verdict::NotHere(_));
    let mut good =
        reports.iter().flat_map(|report| &report.findings).all(|finding| is_right(&finding.verdict));
    let drift = match args.profile {
        Some(_) => drift(&world.settings, &world.facts, &world.profile),
        None => Vec::new(),
    };
    good &= drift.is_empty();
    if json {
        let knobs: Vec<_> = reports
            .iter()
            .map(|report| {
                let tuner = report.tuner;
                serde_json::json!({
                    "knob": tuner.name(), "why": tuner.why(), "cost": tuner.cost(), "findings": report.findings,
                })
            })
            .collect();
        let drift: Vec<String> = drift.iter().map(ToString::to_string).collect();
        print_json(
            &serde_json::json!({ "goal": world.profile.goal, "good": good, "knobs": knobs, "drift": drift }),
        )?;
        return Ok(good);
    }
    println!("goal: {}\n{}", world.profile.goal, table::knobs(&reports, all));
    for difference in drift {
        println!("drift: {difference}");
    }
    Ok(good)
}

fn change(
    args: &MachineArgs,
    only: &Only,
    journal: &JournalArgs,
    dry_run: bool,
    as_script: bool,
) -> anyhow::Result<bool> {
    let world = World::look_at(args)?;
    let changes = wanted(&world.reports(only)?);
    if as_script {
        print!("{}", script(&world.settings, &changes));
        return Ok(true);
    }
    if dry_run {
        for Wanted { tuner, change } in &changes {
            let old = world.settings.read(&change.place).unwrap_or_default();
            println!("{tuner}: {}: {old} -> {}", change.place, change.value);
        }
        println!("{} changes; nothing was changed", changes.len());
        return Ok(true);
    }
    let mut journal = Journal::open(&journal.journal)?;
    let mut failed = 0;
    let mut made = 0;
    for Applied { wanted: Wanted { tuner, change }, result } in apply(&world.settings, changes, &mut journal)?
    {
        match result {
            Ok(old) => {
                made += 1;
                println!("{tuner}: {}: {old} -> {}", change.place, change.value);
            }
            Err(error) => {
                failed += 1;
                eprintln!("{tuner}: {error}");
            }
        }
    }
    println!("{made} changed, {failed} failed; `apogee-tune undo` takes all of it back");
    Ok(failed == 0)
}

fn take_back(journal: &JournalArgs, force: bool) -> anyhow::Result<bool> {
    let mut journal = Journal::open(&journal.journal)?;
    let mut good = true;
    let undone = undo(&Settings::machine(), &mut journal, force)?;
    for undone in &undone {
        match undone {
            Undone::Restored(entry) => println!("{}: {} -> {}", entry.place, entry.new, entry.old),
            Undone::Gone(entry) => println!("{}: is not there any more", entry.place),
            Undone::ChangedSince { entry, found } => {
                good = false;
                println!(
                    "{}: is {found}, which is not what was set ({}); left as it is (--force sets {})",
                    entry.place, entry.new, entry.old
                );
            }
            Undone::Failed { entry, error } => {
                good = false;
                eprintln!("{}: {error}", entry.place);
            }
        }
    }
    println!("{} changes taken back or dropped", undone.len() - journal.entries().len());
    Ok(good)
}

struct Rounds {
    pairs: u32,
    seconds: Duration,
    own: Option<CommandProbe>,
}

fn verify_all(
    args: &MachineArgs,
    only: &Only,
    journal: &JournalArgs,
    mut rounds: Rounds,
    json: bool,
) -> anyhow::Result<bool> {
    let world = World::look_at(args)?;
    let mut results = Vec::new();
    let mut journal = Journal::open(&journal.journal)?;
    let mut good = true;
    for report in world.reports(only)? {
        let changes = wanted(std::slice::from_ref(&report));
        if changes.is_empty() {
            continue;
        }
        let name = report.tuner.name();
        let is_of_disk = name.starts_with("disk-");
        let mut disk_probe = DiskProbe::new(world.data_dir()?, rounds.seconds);
        let mut net_probe = NetProbe::new(rounds.seconds);
        let probe: &mut dyn Probe = match &mut rounds.own {
            Some(own) => own,
            None if is_of_disk => &mut disk_probe,
            None => &mut net_probe,
        };
        eprintln!("{name}: {} pairs of {}", rounds.pairs, probe.name());
        match verify(&world.settings, &changes, probe, rounds.pairs, &mut journal) {
            Ok(result) => results.push(result),
            Err(error) => {
                good = false;
                eprintln!("{name}: {error}");
            }
        }
    }
    if json {
        print_json(&results)?;
    } else if results.is_empty() {
        println!("nothing to verify: no knob is to be set here");
    } else {
        println!("{}", table::verified(&results));
    }
    Ok(good)
}

impl World {
    /// The nearest directory that exists of the data directory.
    fn data_dir(&self) -> anyhow::Result<PathBuf> {
        let path = std::path::absolute(&self.data)?;
        let found = path.ancestors().find(|path| path.is_dir());
        found.map(Path::to_owned).context("no directory above the data directory exists")
    }
}
