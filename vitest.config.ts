import { defineConfig } from 'vitest/config'

// Soft-RoCE drops completions when many queue pairs drive it at once, and its machine is slow.
const verbs = process.env['RFAAS_REQUIRE'] === 'verbs'
const seconds = 1000

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // npm run test:slurm
    exclude: ['test/slurm/**'],
    globalSetup: ['test/global-setup.ts'],
    pool: 'forks',
    maxWorkers: 2,
    fileParallelism: !verbs,
    testTimeout: (verbs ? 300 : 30) * seconds,
    hookTimeout: (verbs ? 300 : 60) * seconds,
  },
})
