//! Checks the domains of a configuration file, and that their grants lead to memory.

use std::sync::Arc;

use toml::Spanned;

use super::check::Check;
use super::disjoint::disjoint;
use super::error::ConfigError;
use super::file::{DomainTable, GrantIdentityTable, GrantTable};
use super::memory::Memory;
use super::plan::{Content, DomainPlan, GrantPlan, RegionPlan};
use super::source::Mark;
use crate::addr::{DeviceAddr, GRANULE, GuestPhys};
use crate::error::Errno;
use crate::iommu::{DomainKind, DomainOptions};
use crate::mapping::DrainPolicy;
use crate::span::Span;

/// Maximum limit of a domain: as many entries as 1 TiB has 4 KiB pages. Its table would take
/// about 2 GiB.
const LIMIT_MAX: u64 = 1 << 28;
/// Maximum number of grants in one list.
const GRANTS_MAX: usize = 1 << 16;

pub(super) fn plan_domains(
    check: &Check<'_>,
    tables: &[Spanned<DomainTable>],
    regions: &[RegionPlan],
    policy: DrainPolicy,
) -> Result<Vec<DomainPlan>, ConfigError> {
    let memory = Memory::of(regions, |content| {
        matches!(content, Content::Ram { .. } | Content::Rom { .. } | Content::Pass { .. })
    });
    tables.iter().map(|table| plan_domain(check, table.get_ref(), &memory, policy)).collect()
}

fn plan_domain(
    check: &Check<'_>,
    table: &DomainTable,
    memory: &Memory,
    policy: DrainPolicy,
) -> Result<DomainPlan, ConfigError> {
    let kind = table.kind.get_ref().0;
    let mut options = DomainOptions::new(kind);
    if let Some(owner) = &table.owner {
        options.owner = Arc::from(check.name(owner, "domain.owner")?);
    }
    if let Some(limit) = &table.limit {
        options.limit = limit.get_ref().0;
        if !(1..=LIMIT_MAX).contains(&options.limit) {
            let message = format!("expected 1 to {LIMIT_MAX} table entries");
            return Err(check.source.wrong(Mark::of(limit, "domain.limit"), &message));
        }
    }
    if let Some(drain) = &table.drain {
        options.drain = Some(check.drain(drain, policy, "domain.drain.deadline-ms")?);
    }
    let (identity, translated) = (table.grant_identity.as_ref(), table.grant.as_ref());
    let misplaced = |at, takes| {
        let message = format!("a domain of kind `{kind}` takes {takes}");
        Err(check.source.wrong(at, &message))
    };
    if let Some(identity) = identity
        && kind != DomainKind::Identity
    {
        let takes = if kind == DomainKind::Translate { "`grant`" } else { "no grants" };
        return misplaced(Mark::of(identity, "domain.grant-identity"), takes);
    }
    if let Some(translated) = translated
        && kind != DomainKind::Translate
    {
        let takes = if kind == DomainKind::Identity { "`grant-identity`" } else { "no grants" };
        return misplaced(Mark::of(translated, "domain.grant"), takes);
    }
    let identity = listed(check, identity, "domain.grant-identity")?;
    let translated = listed(check, translated, "domain.grant")?;
    let identity = identity.iter().map(|grant| plan_identity(check, grant.get_ref(), memory));
    let translated = translated.iter().map(|grant| plan_grant(check, grant.get_ref(), memory));
    let grants = identity.chain(translated).collect::<Result<Vec<_>, _>>()?;
    let grants = disjoint(check.source, &grants)?;
    let at = Mark::of(&table.name, "domain.name");
    Ok(DomainPlan { name: table.name.get_ref().clone(), at, options, grants })
}

/// The grants of a list, if they are not too many; none without a list.
fn listed<'a, T>(
    check: &Check<'_>,
    list: Option<&'a Spanned<Vec<T>>>,
    key: &'static str,
) -> Result<&'a [T], ConfigError> {
    let Some(list) = list else { return Ok(&[]) };
    if list.get_ref().len() > GRANTS_MAX {
        let message = format!("expected at most {GRANTS_MAX} grants");
        return Err(check.source.wrong(Mark::of(list, key), &message).with_errno(Errno::NOSPC));
    }
    Ok(list.get_ref())
}

fn plan_identity(
    check: &Check<'_>,
    grant: &GrantIdentityTable,
    memory: &Memory,
) -> Result<GrantPlan, ConfigError> {
    let at = Mark::of(&grant.start, "domain.grant-identity.start");
    let size = (grant.size.get_ref().0, Mark::of(&grant.size, "domain.grant-identity.size"));
    let guest = check.span((grant.start.get_ref().0, at), size)?;
    if !grant.hole {
        expect(memory, check, guest, at)?;
    }
    let (guest, len) = (guest.start(), guest.len());
    Ok(GrantPlan { at, device: DeviceAddr::identity(guest), guest, len, access: grant.access.0 })
}

fn plan_grant(
    check: &Check<'_>,
    grant: &GrantTable,
    memory: &Memory,
) -> Result<GrantPlan, ConfigError> {
    let at = Mark::of(&grant.device, "domain.grant.device");
    let guest_at = Mark::of(&grant.guest, "domain.grant.guest");
    let size = (grant.size.get_ref().0, Mark::of(&grant.size, "domain.grant.size"));
    let device = check.span::<DeviceAddr>((grant.device.get_ref().0, at), size)?;
    let guest = check.span::<GuestPhys>((grant.guest.get_ref().0, guest_at), size)?;
    if device.start().0 % GRANULE != guest.start().0 % GRANULE {
        let message = format!("expected the same last 12 bits as in `device`, {}", device.start());
        return Err(check.source.wrong(guest_at, &message));
    }
    if !grant.hole {
        expect(memory, check, guest, guest_at)?;
    }
    let (device, guest, len) = (device.start(), guest.start(), guest.len());
    Ok(GrantPlan { at, device, guest, len, access: grant.access.0 })
}

/// Refuses a grant part of which has no memory: in a file, which adds no memory later, it is
/// most likely a mistake.
fn expect(
    memory: &Memory,
    check: &Check<'_>,
    span: Span<GuestPhys>,
    at: Mark,
) -> Result<(), ConfigError> {
    let Some(hole) = memory.hole(span) else { return Ok(()) };
    let message = format!(
        "no RAM, ROM or pass-through memory is at {hole}, inside the grant's {span}; say \
         `hole = true` if that is meant"
    );
    Err(check.source.wrong(at, &message).with_errno(Errno::NXIO))
}
