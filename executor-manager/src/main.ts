// The executor manager as a process of its own.
import { runCommand } from '../../lib/control/command.js'
import { executorManagerCommand } from './command.js'

await runCommand(executorManagerCommand())
