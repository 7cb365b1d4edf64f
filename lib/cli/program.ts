// The commands of `rfaas`, put together.
import { Command } from 'commander'

import { packageVersion } from '../package-root.js'
import { doctorCommand } from './doctor.js'
import { harvestCommand } from './harvest.js'
import { includeCommand } from './include.js'
import { invokeCommand } from './invoke.js'
import { keysCommand } from './keys.js'
import { leasesCommand } from './leases.js'
import { managerCommands } from './managers.js'
import { drainCommand, nodesCommand, undrainCommand } from './nodes.js'
import { simulateCommand } from './simulate.js'
import { upCommand } from './up.js'
import { usageCommand } from './usage.js'
import { utilizationCommand } from './utilization.js'

/** `args`: what the user typed; the managers are loaded only if they are among them. */
export async function createProgram(args: readonly string[]): Promise<Command> {
  const program = new Command('rfaas')
    .description('Call functions on the idle cores of a cluster in microseconds.')
    .version(packageVersion(), '-V, --version', 'print the version')
    .option('--debug', 'show the stack of errors, as RFAAS_DEBUG=1 does')
    .helpOption('-h, --help', 'show help, also of a command')
    .helpCommand(false)
    .showHelpAfterError("  'rfaas --help' lists what there is")
    .exitOverride()
    .configureOutput({
      outputError: (text, write) => write(text.replace(/^error: /, 'rfaas: ')),
    })
    .addHelpText(
      'after',
      `
Start here:
  rfaas doctor                                        what this host can do
  rfaas up                                            a cluster of this machine
  printf world | rfaas invoke hello.so hello -i -     a call, in another terminal

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 and 143 interrupted.`,
    )
  const [resourceManager, executorManager] = await managerCommands(args)
  program.commandsGroup('On one machine:')
  adopt(program, upCommand())
  adopt(program, doctorCommand())
  program.commandsGroup('Use a cluster:')
  for (const command of [invokeCommand(), nodesCommand(), leasesCommand(), usageCommand()]) {
    adopt(program, command)
  }
  adopt(program, includeCommand())
  program.commandsGroup('Run a cluster:')
  adopt(program, resourceManager)
  adopt(program, executorManager)
  adopt(program, keysCommand())
  for (const command of [drainCommand(), undrainCommand(), harvestCommand()]) {
    adopt(program, command)
  }
  program.commandsGroup('Look at a cluster:')
  adopt(program, utilizationCommand())
  adopt(program, simulateCommand())
  return program
}

/** With the settings of the program, also for commands that were made elsewhere. */
function adopt(program: Command, command: Command): void {
  command
    .copyInheritedSettings(program)
    .showHelpAfterError(`  'rfaas ${command.name()} --help' shows what is allowed`)
  for (const child of command.commands) {
    child
      .copyInheritedSettings(command)
      .showHelpAfterError(
        `  'rfaas ${command.name()} ${child.name()} --help' shows what is allowed`,
      )
  }
  program.addCommand(command)
}
