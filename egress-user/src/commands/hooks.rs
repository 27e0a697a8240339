//! The hooks of base chains in commands that are parsed and not checked yet: where their devices can
//! still be exchanged.

use egress_lang::ast::{ChainBlock, CommandKind, HookSpec, Name, Script};

/// Visits the hook of every base chain that the commands make: table, chain, hook.
pub fn for_each(script: &mut Script, mut visit: impl FnMut(&Name, &Name, &mut HookSpec)) {
    for command in &mut script.commands {
        match &mut command.kind {
            CommandKind::Table(_, table, block) => {
                for (chain, block) in &mut block.chains {
                    visit_block(&table.name, chain, block, &mut visit);
                }
            }
            CommandKind::Chain(_, path, Some(block)) => {
                visit_block(&path.table.name, &path.name, block, &mut visit);
            }
            _ => {}
        }
    }
}

fn visit_block(
    table: &Name,
    chain: &Name,
    block: &mut ChainBlock,
    visit: &mut impl FnMut(&Name, &Name, &mut HookSpec),
) {
    if let Some(hook) = &mut block.hook {
        visit(table, chain, hook);
    }
}
