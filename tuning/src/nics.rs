//! Network interfaces: driver, queues, interrupts and what the kernel spreads over cpus.

use std::fmt;
use std::fs;

use serde::Serialize;

use crate::roots::{Roots, read, read_line, read_value};

/// Interfaces looked at; a machine with more shows the first by name.
const NICS_MAX: usize = 64;

/// Queues of one direction looked at.
const QUEUES_MAX: usize = 1024;

/// One network interface with a device behind it; loopback, bridges and tunnels have none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nic {
    pub name: String,
    /// Of the kernel, such as `mlx5_core`; `virtio_net` is a guest's.
    pub driver: Option<String>,
    /// Mbit/s, where the link tells.
    pub speed_mbits: Option<u32>,
    pub is_up: bool,
    pub mtu: Option<u32>,
    pub node: Option<u32>,
    /// Receive queues, and send queues.
    pub rx_queues: u32,
    pub tx_queues: u32,
    /// Its interrupts in the order of `/proc/interrupts`.
    pub irqs: Vec<Irq>,
}

/// One interrupt line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Irq {
    pub number: u32,
    /// What the driver calls it: `eth0-TxRx-3`, `virtio3-input.0`.
    pub name: String,
}

impl Nic {
    /// The interrupt of receive queue `queue`: the driver's name ends in its number; drivers name the interrupts of other
    /// purposes (`config`, `async`, output alone) by words.
    #[must_use]
    pub fn rx_irq(&self, queue: u32) -> Option<&Irq> {
        self.irqs.iter().find(|irq| {
            let name = irq.name.split('@').next().unwrap_or_default();
            let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
            let (stem, number) = name.split_at(name.len() - digits);
            let is_send_only = ["output.", "tx-", "async"].iter().any(|word| stem.ends_with(word));
            number.parse() == Ok(queue) && !is_send_only
        })
    }

    /// A guest's interface: its queues and interrupts are the host's to steer.
    #[must_use]
    pub fn is_paravirtual(&self) -> bool {
        matches!(self.driver.as_deref(), Some("virtio_net" | "vmxnet3" | "xen_netfront" | "hv_netvsc"))
    }
}

/// One line.
impl fmt::Display for Nic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.name, self.driver.as_deref().unwrap_or("driver not told"))?;
        if let Some(speed) = self.speed_mbits {
            write!(f, ", {speed} Mbit/s")?;
        }
        write!(f, ", {}", if self.is_up { "up" } else { "down" })?;
        write!(
            f,
            ", {} receive and {} send queues, {} interrupts",
            self.rx_queues,
            self.tx_queues,
            self.irqs.len()
        )
    }
}

/// All interfaces with a device, by name.
pub fn nics(roots: &Roots) -> Vec<Nic> {
    let interrupts = read(&roots.proc("interrupts")).unwrap_or_default();
    let Ok(entries) = fs::read_dir(roots.sys("class/net")) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter(|name| roots.sys(&format!("class/net/{name}/device")).exists()).collect();
    names.sort();
    names.truncate(NICS_MAX);
    names.into_iter().map(|name| nic(roots, name, &interrupts)).collect()
}

fn nic(roots: &Roots, name: String, interrupts: &str) -> Nic {
    let dir = roots.sys(&format!("class/net/{name}"));
    let device = dir.join("device");
    let link_name = |link: &str| -> Option<String> {
        let target = fs::canonicalize(device.join(link)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    };
    // Behind virtio the device proper, which has the interrupts, is the bus's.
    let bus_names = [fs::canonicalize(&device), fs::canonicalize(device.join(".."))];
    let bus_names: Vec<String> = bus_names
        .into_iter()
        .filter_map(|path| Some(path.ok()?.file_name()?.to_string_lossy().into_owned()))
        .collect();
    let count = |prefix: &str| -> u32 {
        let Ok(entries) = fs::read_dir(dir.join("queues")) else { return 0 };
        let of_prefix = entries
            .filter_map(|entry| entry.ok())
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        of_prefix.take(QUEUES_MAX).count() as u32
    };
    Nic {
        driver: link_name("driver"),
        speed_mbits: read_value(&dir.join("speed")),
        is_up: read_line(&dir.join("operstate")).as_deref() == Some("up"),
        mtu: read_value(&dir.join("mtu")),
        node: read_value(&device.join("numa_node")),
        rx_queues: count("rx-"),
        tx_queues: count("tx-"),
        irqs: irqs_of(roots, &name, &bus_names, interrupts),
        name,
    }
}

/// By the device's list of message-signalled interrupts, and where there is none by the names in `/proc/interrupts`.
fn irqs_of(roots: &Roots, name: &str, bus_names: &[String], interrupts: &str) -> Vec<Irq> {
    let listed: Vec<u32> =
        [format!("class/net/{name}/device/msi_irqs"), format!("class/net/{name}/device/../msi_irqs")]
            .iter()
            .filter_map(|dir| fs::read_dir(roots.sys(dir)).ok())
            .flat_map(|entries| entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
            .collect();
    let is_its = |irq: &Irq| {
        listed.contains(&irq.number)
            || irq.name.starts_with(&format!("{name}-"))
            || bus_names.iter().any(|bus| {
                irq.name.starts_with(&format!("{bus}-")) || irq.name.contains(&format!("@pci:{bus}"))
            })
    };
    lines(interrupts).filter(is_its).collect()
}

/// The numbered lines of `/proc/interrupts`:
///
/// ```text
///  38:          0       2476 PCI-MSIX-0000:00:03.0   1-edge      virtio2-input.0
/// ```
pub(crate) fn lines(interrupts: &str) -> impl Iterator<Item = Irq> + '_ {
    interrupts.lines().filter_map(|line| {
        let (number, rest) = line.split_once(':')?;
        Some(Irq {
            number: number.trim().parse().ok()?,
            name: rest.split_ascii_whitespace().last()?.to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Nic {
        Nic {
            name: "eth0".to_owned(),
            driver: None,
            speed_mbits: None,
            is_up: true,
            mtu: None,
            node: None,
            rx_queues: 2,
            tx_queues: 2,
            irqs: names
                .iter()
                .enumerate()
                .map(|(n, name)| Irq { number: n as u32, name: (*name).to_owned() })
                .collect(),
        }
    }

    #[test]
    fn a_receive_queues_interrupt_is_found_by_each_drivers_way_of_naming() {
        let found = |names: &[&str], queue| named(names).rx_irq(queue).map(|irq| irq.number);
        assert_eq!(found(&["eth0-TxRx-0", "eth0-TxRx-1", "eth0"], 1), Some(1), "ixgbe");
        assert_eq!(found(&["virtio2-config", "virtio2-input.0", "virtio2-output.0"], 0), Some(1), "virtio");
        assert_eq!(
            found(&["mlx5_async0@pci:0000:3b:00.0", "mlx5_comp0@pci:0000:3b:00.0"], 0),
            Some(1),
            "mlx5"
        );
        assert_eq!(found(&["ens5-Tx-Rx-0", "ens5-Tx-Rx-1"], 0), Some(0), "ena");
        assert_eq!(found(&["eth0-tx-0", "eth0-rx-0"], 0), Some(1));
    }
}
