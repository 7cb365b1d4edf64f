#!/usr/bin/env node
// The command line `rfaas`.
import { report } from './failure.js'
import { tolerateClosedPipes } from './output.js'
import { createProgram } from './program.js'

const args = process.argv.slice(2)
const debug = args.includes('--debug') || (process.env['RFAAS_DEBUG'] ?? '') === '1'

tolerateClosedPipes()
try {
  const program = await createProgram(args)
  await program.parseAsync(args, { from: 'user' })
} catch (error) {
  process.exitCode = report(error, debug)
}
