//! The HAL's rules.

use super::Parameter::{Is, Of};
use super::{Rule, rules};

rules! {
    DMA_VIOLATION "dma-violation" = Rule::new(
        &[],
        "The device accesses only what is mapped for it, as it is mapped",
    )
    .stops(0xE6, [Is(0x26), Is(0), Of("the address"), Of("the unit's fault reason")])
    .inferred(
        "bug check 0xE6, 0x26, which Windows raises without Driver Verifier too; the second and \
         fourth parameter are as in a public crash",
    );
    D3_RESETS "d3-resets" = Rule::new(
        &["DxgkDdiSetPowerState"],
        "A device that comes back from D3 holds nothing: the PCI bus driver has restored its \
         BARs, its messages and bus mastering, the rest is the driver's",
    )
    .documented("PCI Power Management 1.2, 5.4.1: No_Soft_Reset is clear, so D3hot ends in a \
                 reset");
}
