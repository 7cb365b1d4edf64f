// Runs a program of Slurm. It may hang, die, or print without end: it has a deadline and a most that is
// read of it, and whatever becomes of it is one sentence.
import { spawn } from 'node:child_process'
import { RfaasError } from '../../../lib/errors.js'

const maxOutputBytes = 256 * 2 ** 20
const maxErrorChars = 500
// Nothing else of our environment is the business of another program, or of the jobs that it submits.
const inheritedEnvironment = ['PATH', 'HOME', 'USER', 'LOGNAME', 'SLURM_CONF']

export interface RunOptions {
  timeoutMs: number
  signal: AbortSignal
}

/** What it printed; throws ERR_RFAAS_UNAVAILABLE. */
export function run(
  program: string,
  args: readonly string[],
  { timeoutMs, signal }: RunOptions,
): Promise<string> {
  return new Promise((resolve, reject) => {
    // In a group of its own: what it may have started is killed with it.
    const child = spawn(program, args, {
      env: environment(),
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    })
    const output: Buffer[] = []
    let bytes = 0
    let complaint = ''
    const end = (why: string | undefined): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
      if (why === undefined) return resolve(Buffer.concat(output).toString())
      if (child.pid !== undefined) killGroup(child.pid)
      child.stdout.destroy()
      child.stderr.destroy()
      reject(new RfaasError('ERR_RFAAS_UNAVAILABLE', `${program} ${why}`))
    }
    const onAbort = (): void => end('was not waited for: the resource manager stops')
    const timer = setTimeout(() => end(`did not answer within ${timeoutMs} ms`), timeoutMs)
    signal.addEventListener('abort', onAbort)
    child.stdout.on('data', (chunk: Buffer) => {
      bytes += chunk.byteLength
      if (bytes > maxOutputBytes) return end(`printed more than ${maxOutputBytes} bytes`)
      output.push(chunk)
    })
    child.stderr.on('data', (chunk: Buffer) => {
      complaint = (complaint + chunk.toString()).slice(0, maxErrorChars)
    })
    child.once('error', (error) => end(`cannot be started: ${error.message}`))
    child.once('close', (code, by) => {
      const how = by === null ? `ended with exit code ${code}` : `was killed by ${by}`
      end(code === 0 ? undefined : `${how}: ${oneLine(complaint) || 'it said nothing'}`)
    })
  })
}

/** The value that it printed as JSON. */
export async function runJson(
  program: string,
  args: readonly string[],
  options: RunOptions,
): Promise<unknown> {
  const text = await run(program, args, options)
  try {
    return JSON.parse(text)
  } catch {
    const begin = oneLine(text.slice(0, 60))
    throw new RfaasError(
      'ERR_RFAAS_UNAVAILABLE',
      `${program} printed what is not JSON: ${begin === '' ? 'nothing' : `"${begin}"`}`,
    )
  }
}

function environment(): NodeJS.ProcessEnv {
  const kept: NodeJS.ProcessEnv = { LC_ALL: 'C', TZ: 'UTC' }
  for (const key of inheritedEnvironment) {
    const value = process.env[key]
    if (value !== undefined) kept[key] = value
  }
  return kept
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // It has ended meanwhile.
  }
}

function oneLine(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f\u2028\u2029]+/g, ' ').trim()
}
