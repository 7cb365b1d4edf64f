// The executor manager as a process of its own.
import { CommanderError } from 'commander'
import { RfaasError } from '../../lib/errors.js'
import { executorManagerCommand } from './command.js'

const wrongOption = 2

try {
  await executorManagerCommand().exitOverride().parseAsync()
} catch (error) {
  if (error instanceof CommanderError) {
    // Commander has said what is wrong; --help ends here too, with 0.
    process.exitCode = error.exitCode === 0 ? 0 : wrongOption
  } else {
    // What was raised on purpose says all in one sentence; anything else is a bug and shows where.
    const known = error instanceof RfaasError
    const text = known ? error.message : String((error as Error).stack)
    process.stderr.write(`executor-manager: ${text}\n`)
    process.exitCode = known && error.code === 'ERR_RFAAS_INVALID_ARGUMENT' ? wrongOption : 1
  }
}
