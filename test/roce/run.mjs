#!/usr/bin/env node
// Runs a command where there is an RDMA device: on this host if it has one, else in a throwaway
// virtual machine with a Soft-RoCE device, on the host's own root file system and working tree.
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { cacheFolder, HarnessError, prepareBoot } from './kernel.mjs'
import { Vm } from './vm.mjs'

const kTree = realpathSync(join(dirname(fileURLToPath(import.meta.url)), '..', '..'))
const kDefaultCommand = ['test/roce/guest-tests.sh']
const kDefaultTimeoutSeconds = 1500
/** An emulated boot takes about ten seconds; on a busy machine a few times that. */
const kBootTimeoutMs = 180_000
/** A working KVM guest prints within a second. A nested host may accept one and never run it. */
const kKvmSilenceMs = 5_000
const kSilent = 'the guest printed nothing'
const kTimeoutExitCode = 124

const kUsage = `Usage: node test/roce/run.mjs [OPTIONS] [-- COMMAND ARGS...]

Runs COMMAND (default: ${kDefaultCommand.join(' ')}) in the working tree with an RDMA device, and exits with its
exit code. A host with an active device runs it directly; any other boots a virtual machine.

  --timeout SECONDS  end everything after this long, exit code ${kTimeoutExitCode} (default ${kDefaultTimeoutSeconds})
  --keep-log FILE    write the guest's console to FILE and keep it
  --output DIR       make DIR writable for the command, which finds it as $RFAAS_OUTPUT
  --help             print this

Environment: RFAAS_* variables reach the command, RFAAS_REQUIRE is always "verbs" there.
  RFAAS_ROCE_CACHE   folder for the kernel and the initramfs (default ${cacheFolder()})
`

const say = (/** @type {string} */ message) => void process.stderr.write(`roce: ${message}\n`)
const quote = (/** @type {string} */ word) => `'${word.replaceAll("'", `'\\''`)}'`

function readArguments() {
  const argv = process.argv.slice(2)
  const end = argv.includes('--') ? argv.indexOf('--') : argv.length
  const { values } = parseArgs({
    args: argv.slice(0, end),
    options: {
      timeout: { type: 'string', default: String(kDefaultTimeoutSeconds) },
      'keep-log': { type: 'string' },
      output: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  const timeoutSeconds = Number(values.timeout)
  // 2^31 ms is as far as a timer of Node reaches.
  if (!(timeoutSeconds > 0 && timeoutSeconds < 2 ** 31 / 1000)) {
    throw new TypeError(`--timeout ${values.timeout}: must be a number of seconds, 1 to 2147483`)
  }
  const command = argv.slice(end + 1)
  return {
    help: values.help,
    timeoutMs: timeoutSeconds * 1000,
    keepLog: values['keep-log'] && resolve(values['keep-log']),
    output: values.output && resolve(values.output),
    command: command.length > 0 ? command : kDefaultCommand,
  }
}

/**
 * @param {string} option
 * @param {string} folder
 */
function makeFolder(option, folder) {
  try {
    mkdirSync(folder, { recursive: true })
  } catch (error) {
    throw new HarnessError(`${option}: ${error instanceof Error ? error.message : error}`)
  }
}

/** @returns {string | undefined} name of a device with an active port */
function activeDevice() {
  const devices = '/sys/class/infiniband'
  if (!existsSync(devices)) return undefined
  return readdirSync(devices).find((device) =>
    readdirSync(join(devices, device, 'ports')).some((port) =>
      readFileSync(join(devices, device, 'ports', port, 'state'), 'utf8').includes('ACTIVE'),
    ),
  )
}

/** @param {string | undefined} output where the command may write, in its own view */
function commandEnvironment(output) {
  const passed = /^(RFAAS_.*|PATH|LANG|LC_.*|TZ|CI|NO_COLOR|FORCE_COLOR|NODE_OPTIONS)$/
  return {
    ...Object.fromEntries(Object.entries(process.env).filter(([name]) => passed.test(name))),
    RFAAS_REQUIRE: 'verbs',
    // Also when undefined: a folder of the caller's own environment may not exist or be writable there.
    RFAAS_OUTPUT: output,
  }
}

/**
 * Calls `end` when this process is told to stop, or when nobody reads its output any more.
 * @param {(signal: NodeJS.Signals) => void} end
 */
function onEndSignal(end) {
  const stop = (/** @type {NodeJS.Signals} */ signal) => {
    process.exitCode = 128 + constants.signals[signal]
    end(signal)
  }
  for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) {
    process.on(signal, () => stop(signal))
  }
  process.stdout.on('error', () => stop('SIGPIPE'))
}

/**
 * @param {ReturnType<typeof readArguments>} options
 * @returns {Promise<number>} exit code
 */
async function runOnHost(options) {
  const [program = '', ...args] = options.command
  const env = { ...process.env, ...commandEnvironment(options.output) }
  // A group of its own, so that the time-out ends what the command started as well.
  const child = spawn(program, args, {
    cwd: kTree,
    env,
    stdio: ['ignore', 'inherit', 'inherit'],
    detached: true,
  })
  const endGroup = (/** @type {NodeJS.Signals} */ signal) => {
    const running = child.exitCode === null && child.signalCode === null
    if (child.pid !== undefined && running) process.kill(-child.pid, signal)
  }
  onEndSignal(endGroup)
  let timedOut = false
  const timer = setTimeout(() => {
    timedOut = true
    say(`timed out after ${options.timeoutMs / 1000} s`)
    endGroup('SIGKILL')
  }, options.timeoutMs)
  const code = await new Promise((done, fail) => {
    child.on('error', (error) => fail(new HarnessError(`${program}: ${error.message}`)))
    child.on('close', (status, signal) =>
      done(status ?? 128 + constants.signals[signal ?? 'SIGKILL']),
    )
  }).finally(() => clearTimeout(timer))
  return timedOut ? kTimeoutExitCode : code
}

/** Why KVM is not worth a try; undefined if it is. A failure is remembered until the host reboots. */
function kvmRecord() {
  const file = join(cacheFolder(), 'kvm-failed-in-boot')
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8')
  return {
    worthATry: existsSync('/dev/kvm') && !(existsSync(file) && readFileSync(file, 'utf8') === boot),
    remember: () => writeFileSync(file, boot),
  }
}

/**
 * @param {ReturnType<typeof readArguments>} options
 * @returns {Promise<number>} exit code
 */
async function runInMachine(options) {
  const began = performance.now()
  const seconds = (from = began) => ((performance.now() - from) / 1000).toFixed(1)
  const { kernel, initramfs } = prepareBoot(say)
  if (options.keepLog !== undefined) makeFolder('--keep-log', dirname(options.keepLog))

  // The guest sees this folder through its view of the host's root.
  const work = realpathSync(mkdtempSync(join(tmpdir(), 'rfaas-roce-')))
  const env = Object.entries({
    ...commandEnvironment(options.output && '/run/rfaas/output'),
    HOME: '/tmp/home',
  }).flatMap(([name, text]) => (text === undefined ? [] : [`${name}=${text}`]))
  const words = ['env', '-i', ...env, ...options.command].map(quote).join(' ')
  writeFileSync(join(work, 'job.sh'), `cd ${quote(kTree)} || exit 126\nexec ${words}\n`)

  const nonce = randomBytes(16).toString('hex')
  // tsc=reliable: the guest otherwise falls back to a clock that costs microseconds to read. A kernel
  // that has gone wrong must end at once, not go on and pass.
  const append = [
    'console=ttyS0 ignore_loglevel panic=-1 oops=panic tsc=reliable mitigations=off',
    `rfaas_tree="${kTree}" rfaas_job="${join(work, 'job.sh')}" rfaas_nonce=${nonce}`,
    `rfaas_output=${options.output === undefined ? 'no' : 'yes'}`,
  ].join(' ')

  /** @type {Vm | undefined} */
  let vm
  let readyAt = 0
  const limits = new Set()
  const limit = (/** @type {number} */ ms, /** @type {() => void} */ act) => {
    const timer = setTimeout(act, ms)
    limits.add(timer)
    return timer
  }
  const boot = (/** @type {'kvm' | 'tcg'} */ accelerator) => {
    vm = new Vm(accelerator, {
      kernel,
      initramfs,
      append,
      nonce,
      consoleLog: options.keepLog ?? join(work, 'console.log'),
      output: options.output,
      onOutput: (bytes) => void process.stdout.write(bytes),
      onReady: () => {
        readyAt = performance.now()
        const [line = ''] = options.command.join(' ').split('\n')
        say(`rxe0 is up after ${seconds()} s (${accelerator}), running: ${line}`)
      },
    })
    return vm
  }
  let interrupted = false
  onEndSignal((signal) => {
    interrupted = true
    vm?.stop(signal)
  })
  limit(options.timeoutMs, () => vm?.stop(`timed out after ${options.timeoutMs / 1000} s`))
  limit(kBootTimeoutMs, () => {
    if (readyAt === 0) vm?.stop(`the guest was not ready after ${kBootTimeoutMs / 1000} s`)
  })

  try {
    const kvm = kvmRecord()
    let outcome
    let kvmFailed = false
    if (kvm.worthATry) {
      const guest = boot('kvm')
      const silent = () => !guest.consoleLines().some((line) => line.includes('Linux version'))
      const silence = limit(kKvmSilenceMs, () => silent() && guest.stop(kSilent))
      outcome = await guest.finished
      clearTimeout(silence)
      kvmFailed =
        outcome.kind === 'ended' ? silent() : 'reason' in outcome && outcome.reason === kSilent
    }
    if (outcome === undefined || kvmFailed) {
      if (kvmFailed) say('KVM does not work here; emulating instead')
      outcome = await boot('tcg').finished
      // Only now is it certain that the fault was KVM's.
      if (kvmFailed && readyAt > 0) kvm.remember()
    }
    if (interrupted) return Number(process.exitCode)
    if (outcome.kind === 'exit') {
      say(`the command ended with ${outcome.code} after ${seconds(readyAt)} s`)
    } else {
      const lines = vm?.consoleLines() ?? []
      const panic = lines.find((line) => line.includes('Kernel panic'))
      const failure = lines.find((line) => line.startsWith('rfaas guest: '))
      say(failure ?? panic ?? (outcome.kind === 'stopped' ? outcome.reason : outcome.detail))
      say(`the guest's last console lines:\n${lines.slice(-30).join('\n')}`)
    }
    const code =
      outcome.kind === 'exit' ? outcome.code : outcome.kind === 'stopped' ? kTimeoutExitCode : 1
    if (code !== 0) reportRdma(vm?.consoleLines() ?? [])
    return code
  } finally {
    for (const timer of limits) clearTimeout(timer)
    rmSync(work, { recursive: true, force: true })
  }
}

/** The kernel names every complaint of rxe in its log. @param {string[]} lines */
function reportRdma(lines) {
  const matching = lines.filter((line) => /rxe|rdma|infiniband|uverbs|\bib_/i.test(line))
  const text = matching.length > 0 ? matching.slice(-60).join('\n') : '(none)'
  say(`kernel messages about rxe and rdma:\n${text}`)
}

async function main() {
  let options
  try {
    options = readArguments()
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : error}\n\n${kUsage}`)
    return 2
  }
  if (options.help) {
    process.stdout.write(kUsage)
    return 0
  }
  try {
    if (options.output !== undefined) makeFolder('--output', options.output)
    const device = activeDevice()
    if (device === undefined) return await runInMachine(options)
    say(`this host has an active device, ${device}: running there, without a virtual machine`)
    return await runOnHost(options)
  } catch (error) {
    if (!(error instanceof HarnessError)) throw error
    say(error.message)
    return 1
  }
}

// Not process.exit(): what standard output still holds has to get out first.
const exitCode = await main()
process.exitCode ??= exitCode
