// The resource manager as a process of its own.
import { RfaasError } from '../../lib/errors.js'
import { resourceManagerCommand } from './command.js'

try {
  await resourceManagerCommand().parseAsync()
} catch (error) {
  // What was raised on purpose says all in one sentence; anything else is a bug and shows its stack.
  const text = error instanceof RfaasError ? error.message : String((error as Error).stack)
  process.stderr.write(`resource-manager: ${text}\n`)
  process.exitCode =
    error instanceof RfaasError && error.code === 'ERR_RFAAS_INVALID_ARGUMENT' ? 2 : 1
}
