//! Devices on the PCI bus: configuration space, BARs, interrupts, doorbells, hostile guests.

mod bars;
mod config;
mod doorbells;
mod interrupts;
mod life;
mod rig;

use crate::support::Trials;

pub(crate) fn trials() -> Trials {
    vec![
        ("pci_config_is_the_same_by_ports_and_ecam_in_every_width", config::config),
        ("pci_functions_that_are_not_there_read_as_ones", config::absent),
        ("pci_places_are_refused_if_taken_and_found_if_free", config::places),
        ("pci_bars_go_where_the_guest_moves_them", bars::bars_move),
        ("pci_bars_that_overlap_come_back_when_they_no_longer_do", bars::overlaps),
        ("pci_bars_are_ports_low_or_high_memory", bars::kinds),
        ("pci_dma_moves_bytes_and_raises_msix", interrupts::dma_msix),
        ("pci_msix_is_held_back_while_masked_and_goes_to_its_new_message", interrupts::msix_masks),
        ("pci_msix_is_set_through_a_window_of_configuration_space", interrupts::window),
        ("pci_msi_vectors_go_to_their_messages", interrupts::msi),
        ("pci_pin_stays_up_until_the_device_lowers_it", interrupts::pin),
        ("pci_device_has_as_many_messages_as_it_has_vectors", interrupts::many_vectors),
        ("a_message_is_sent_without_a_device", interrupts::message),
        ("pci_doorbell_rings_without_an_exit_and_follows_its_bar", doorbells::rings),
        ("pci_doorbell_ends_with_a_reset", doorbells::resets),
        ("pci_device_works_after_1000_resets", life::resets),
        ("pci_device_goes_to_a_new_machine_of_the_guest", life::new_machine),
        ("pci_device_works_after_a_guest_wrote_nonsense", life::nonsense),
    ]
}
