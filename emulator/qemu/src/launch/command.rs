//! QEMU's command line.

use super::{IOMMU_SLOT, Iommu, Plan};
use std::path::Path;

/// The command line, program first.
pub(super) fn line(plan: &Plan) -> Vec<String> {
    let description = &plan.description;
    let machine = &description.machine;
    let mut line = Line(vec![plan.qemu.display().to_string()]);

    let accelerator = if plan.kvm { "kvm" } else { "tcg" };
    // The split irqchip is what intel-iommu's interrupt remapping needs.
    let secure = if plan.firmware.is_some() && plan.is_secure() {
        ",smm=on"
    } else {
        ""
    };
    line.option(
        "-machine",
        format!("q35,kernel-irqchip=split,memory-backend=ram{secure}"),
    );
    line.option("-accel", accelerator);
    if !machine.cpu.is_empty() {
        line.option("-cpu", &machine.cpu);
    }
    line.option("-smp", machine.cpus.to_string());
    let memory = machine.memory;
    line.option("-m", format!("{memory}M"));
    // Shared, so that what the guest writes is what the device reads; sealed,
    // so that it cannot be cut short under us.
    line.option(
        "-object",
        format!("memory-backend-memfd,id=ram,size={memory}M,share=on,seal=on"),
    );
    // The IOMMU comes before the devices that it translates for.
    match description.iommu {
        // Without caching mode QEMU learns nothing of new mappings, and says
        // so only by ending.
        Iommu::Intel => line.option(
            "-device",
            "intel-iommu,caching-mode=on,intremap=on,aw-bits=48",
        ),
        Iommu::Virtio => line.option("-device", format!("virtio-iommu-pci,addr={IOMMU_SLOT:#x}")),
        // Served by us, and before the GPU: it is asked for in this order.
        Iommu::OurVirtio | Iommu::None => {}
    }
    if let Some(socket) = plan.iommu_socket() {
        line.option("-device", vfio_user("iommu", IOMMU_SLOT, &socket));
    }
    if let Some((table, _)) = plan.viot() {
        line.option("-acpitable", format!("file={}", escaped(&table)));
    }
    let slot = description.gpu.slot;
    line.option("-device", vfio_user("gpu", slot, &plan.socket()));
    line.option("-display", "none");
    line.option("-vga", if machine.vga { "std" } else { "none" });
    line.option("-nodefaults", "");
    firmware(plan, &mut line);
    boot(plan, &mut line);
    if plan.ends_with_us {
        line.option("-run-with", "exit-with-parent=on");
    }
    line.option("-qmp", socket(&plan.qmp()));
    line.option(
        "-chardev",
        format!(
            "socket,id=serial,path={},server=on,wait=off,logfile={}",
            escaped(&plan.serial()),
            escaped(&plan.out.join("serial.log"))
        ),
    );
    line.option("-serial", "chardev:serial");
    line.0.extend(description.extra.iter().cloned());
    line.0
}

/// A device that is served at a socket.
fn vfio_user(id: &str, slot: u8, socket: &Path) -> String {
    serde_json::json!({
        "driver": "vfio-user-pci",
        "id": id,
        "addr": format!("{slot:#x}"),
        "socket": { "type": "unix", "path": socket },
    })
    .to_string()
}

fn firmware(plan: &Plan, line: &mut Line) {
    if let Some((code, _)) = &plan.firmware {
        let flash = |path: &Path, readonly: &str| {
            format!("if=pflash,format=raw,file={}{readonly}", escaped(path))
        };
        line.option("-drive", flash(code, ",readonly=on"));
        line.option("-drive", flash(&plan.variables(), ""));
        if plan.is_secure() {
            line.option("-global", "driver=cfi.pflash01,property=secure,value=on");
        }
    }
    if plan.swtpm.is_some() {
        line.option(
            "-chardev",
            format!("socket,id=tpm,path={}", escaped(&plan.tpm())),
        );
        line.option("-tpmdev", "emulator,id=tpm0,chardev=tpm");
        line.option("-device", "tpm-crb,tpmdev=tpm0");
    }
}

fn boot(plan: &Plan, line: &mut Line) {
    let boot = &plan.description.boot;
    if let Some(kernel) = &boot.kernel {
        line.option("-kernel", kernel.display().to_string());
    }
    if let Some(initrd) = &boot.initrd {
        line.option("-initrd", initrd.display().to_string());
    }
    if !boot.append.is_empty() {
        line.option("-append", &boot.append);
    }
    if let Some(disk) = &boot.disk {
        line.option(
            "-drive",
            format!("if=ide,index=0,media=disk,file={}", escaped(disk)),
        );
    }
    for (index, image) in boot.cdroms.iter().enumerate() {
        line.option(
            "-drive",
            format!(
                "if=ide,index={},media=cdrom,readonly=on,file={}",
                index + 1,
                escaped(image)
            ),
        );
    }
}

struct Line(Vec<String>);

impl Line {
    fn option(&mut self, name: &str, value: impl AsRef<str>) {
        self.0.push(name.to_owned());
        if !value.as_ref().is_empty() {
            self.0.push(value.as_ref().to_owned());
        }
    }
}

fn socket(path: &Path) -> String {
    format!("unix:{},server=on,wait=off", escaped(path))
}

/// A path in a list of options: a comma is written twice.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// A word as a shell reads it back.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
