// Runs the fuzz targets: native/fuzz/*.cc with libFuzzer, test/fuzz/*.test.ts with fast-check.
//
//     npm run fuzz                     lists the targets
//     npm run fuzz -- TARGET SECONDS   looks for something new
//     npm run fuzz -- TARGET merge     native: keeps in the tree what reached more than it did before
//     npm run fuzz -- short            the run of test:all: every native target, always the same inputs
//
// The corpus of a native target is in native/fuzz/corpus/TARGET, what broke it once among it; longer
// runs collect theirs in build-fuzz/corpus. Findings are kept in build-fuzz/findings.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { basename, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const build = join(root, 'build-fuzz')
const findings = join(build, 'findings')

const shortRuns = 5_000

const environment = {
  ...process.env,
  // Stacks with lines need no LLVM on the machine: binutils' addr2line will do.
  ASAN_OPTIONS: 'detect_leaks=1:detect_stack_use_after_return=1:allow_addr2line=1',
  UBSAN_OPTIONS: 'print_stacktrace=1',
}

const { variables } = JSON.parse(readFileSync(join(root, 'native', 'sources.gypi'), 'utf8'))
const verbs = hasVerbs() ? variables.verbs_fuzz_sources : []
const native = [...variables.fuzz_sources, ...verbs].map((file) =>
  basename(file, '.cc').replaceAll('_', '-'),
)
const script = readdirSync(join(root, 'test', 'fuzz'))
  .filter((file) => file.endsWith('.test.ts'))
  .map((file) => basename(file, '.test.ts'))

const [target, argument] = process.argv.slice(2)
if (target === undefined) {
  console.log(`npm run fuzz -- TARGET SECONDS\n`)
  console.log(`native (libFuzzer):      ${native.join(' ')}`)
  console.log(`TypeScript (fast-check): ${script.join(' ')}`)
} else if (target === 'short') {
  process.exitCode = await runShort()
} else if (native.includes(target) && argument === 'merge') {
  process.exitCode = merge(target)
} else if ([...native, ...script].includes(target) && /^[1-9]\d*$/.test(argument ?? '')) {
  process.exitCode = await (native.includes(target) ? runNative : runScript)(target, argument)
} else {
  console.error(`usage: npm run fuzz -- TARGET SECONDS, with TARGET one of`)
  console.error([...native, ...script].join(' '))
  process.exitCode = 2
}

function hasVerbs() {
  const answer = spawnSync(process.execPath, [join(root, 'scripts', 'have-verbs.mjs')])
  return answer.stdout.toString().trim() === '1'
}

/** Builds the targets; false: it said what is wrong. */
function buildTargets(targets) {
  const ninja = spawnSync('ninja', ['--version']).status === 0 ? ['-G', 'Ninja'] : []
  const first = existsSync(join(build, 'CMakeCache.txt')) ? [] : ninja
  const jobs = process.env.JOBS ?? '2'
  const binaries = targets.map((name) => `fuzz-${name}`)
  return (
    cmake(['--preset', 'fuzz', ...first]) &&
    cmake(['--build', '--preset', 'fuzz', '--parallel', jobs, '--target', ...binaries])
  )
}

function cmake(args) {
  const { status, stdout, stderr } = spawnSync('cmake', args, { cwd: root })
  if (status === 0) return true
  process.stderr.write(Buffer.concat([stdout ?? Buffer.alloc(0), stderr ?? Buffer.alloc(0)]))
  console.error('the fuzz targets need cmake and clang: see scripts/debian-packages.txt')
  return false
}

function corpus(name) {
  const kept = join(root, 'native', 'fuzz', 'corpus', name)
  const own = join(build, 'corpus', name)
  for (const folder of [own, kept, findings]) mkdirSync(folder, { recursive: true })
  return { own, kept }
}

function options(name) {
  return [
    `-artifact_prefix=${join(findings, `${name}-`)}`,
    `-max_len=${name === 'package-exports' ? 4096 : 512}`,
    '-timeout=20',
    '-rss_limit_mb=2048',
  ]
}

/** Runs a target; resolves with its exit code and what it said. */
function run(name, args, show) {
  return new Promise((resolve) => {
    const child = spawn(join(build, `fuzz-${name}`), args, { cwd: root, env: environment })
    let text = ''
    child.stderr.setEncoding('utf8').on('data', (chunk) => {
      text += chunk
      if (show) process.stdout.write(chunk)
    })
    child.once('close', (code) => resolve({ code: code ?? 1, text }))
  })
}

async function runNative(name, seconds) {
  if (!buildTargets([name])) return 1
  const { own, kept } = corpus(name)
  const args = [...options(name), `-max_total_time=${seconds}`, '-print_final_stats=1', own, kept]
  const { code, text } = await run(name, args, true)
  console.log(`\n${summary(name, text)}`)
  if (code === 0) return 0
  tell(name, text)
  return 1
}

async function runShort() {
  const begun = performance.now()
  if (!buildTargets(native)) return 1
  console.log(`built in ${((performance.now() - begun) / 1000).toFixed(0)} s`)
  for (const name of native) {
    const { kept } = corpus(name)
    // A folder of its own: what earlier runs found must not change what this one does.
    const scratch = join(build, 'short', name)
    rmSync(scratch, { recursive: true, force: true })
    mkdirSync(scratch, { recursive: true })
    const args = [...options(name), `-runs=${shortRuns}`, '-seed=1', scratch, kept]
    const { code, text } = await run(name, args, false)
    if (code !== 0) {
      process.stdout.write(text)
      tell(name, text)
      return 1
    }
    console.log(summary(name, text))
  }
  return 0
}

/** "shm-queue: 300000 executions, 1926 a second, coverage 1150, …" from libFuzzer's last line. */
function summary(name, text) {
  const line = [
    ...text.matchAll(/#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\S+) .*exec\/s: (\d+)/g),
  ]
  const last = line.at(-1)
  if (last === undefined) return `${name}: nothing was run`
  const [, executions, coverage, features, inputs, rate] = last
  return `${name}: ${executions} executions (${rate}/s), ${coverage} edges and ${features} features covered, ${inputs} in the corpus`
}

function tell(name, text) {
  const file = /Test unit written to (\S+)/.exec(text)?.[1]
  if (file === undefined) return
  console.log(`finding kept in:  ${relative(root, file)}`)
  console.log(`to see it again:  build-fuzz/fuzz-${name} ${relative(root, file)}`)
  console.log(`when it is fixed: mv it to native/fuzz/corpus/${name}/regression-WHAT`)
}

/** Adds the fewest inputs of the longer runs that reach code which the tree's corpus does not: edges
 * count, how often each was taken does not, or there would be hundreds. */
function merge(name) {
  if (!buildTargets([name])) return 1
  const { own, kept } = corpus(name)
  const args = [...options(name), '-set_cover_merge=1', '-use_counters=0', kept, own]
  return spawnSync(join(build, `fuzz-${name}`), args, { env: environment, stdio: 'inherit' }).status
}

/** fast-check looks for so long, with another seed each time; vitest tells what it found. */
function runScript(name, seconds) {
  const args = ['vitest', 'run', `test/fuzz/${name}.test.ts`, '--disable-console-intercept']
  const env = { ...process.env, RFAAS_FUZZ_SECONDS: seconds }
  return spawnSync('npx', args, { cwd: root, env, stdio: 'inherit' }).status ?? 1
}
