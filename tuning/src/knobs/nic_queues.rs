//! How many queues an interface has.

use super::{Change, Finding, Machine, NicOption, Place, Tuner, Verdict};

pub(super) struct Queues;

impl Tuner for Queues {
    fn name(&self) -> &'static str {
        "nic-queues"
    }

    fn why(&self) -> &'static str {
        "With fewer queues than shards several shards share one, and one core receives for another."
    }

    fn cost(&self) -> &'static str {
        "2 to 5 µs of each message of the shards that share"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let shards = machine.profile.shards.len() as u32;
        let look = |nic: &crate::nics::Nic| {
            let wanted =
                machine.profile.steering.iter().filter(|steering| steering.nic == nic.name).count() as u32;
            let found = format!("{} receive queues", nic.rx_queues);
            if nic.rx_queues >= shards {
                return Finding::right(&nic.name, found);
            }
            let text = format!("{shards} receive queues");
            if nic.is_paravirtual() {
                let why = "how many queues a virtual interface may have is decided by its host".to_owned();
                return Finding::new(&nic.name, found, text, Verdict::NotHere(why));
            }
            let place = Place::Nic { nic: nic.name.clone(), option: NicOption::CombinedQueues };
            if machine.settings.read(&place).is_none() {
                let why =
                    "ethtool cannot set them here: it is not installed, or the driver has no such setting";
                return Finding::new(&nic.name, found, text, Verdict::NotHere(why.to_owned()));
            }
            let change = Change { place, value: wanted.max(shards).to_string() };
            machine.unless_shared(Finding::new(&nic.name, found, text, Verdict::Change(vec![change])))
        };
        machine.nics().map(look).collect()
    }
}
