/*
 * The DSDT of the board "pc" (ACPI specification 6.0, chapter 5.6): what the
 * firmware of a Q35 would describe. iasl compiles it when Vireo is built.
 *
 * What firmware or the command line decides is in integers with names that
 * start with V, which acpi.c sets in the compiled table: it looks for a name
 * and the four-byte constant behind it, and any large value here makes iasl
 * write one. (SeaBIOS looks for devices in here and reads neither eight-byte
 * constants nor what iasl writes for external names.)
 */
DefinitionBlock ("", "DSDT", 2, "VIREO ", "VIREOPC ", 1)
{
    Name (VPMB, 0x11223344) /* PMBASE */
    Name (VECM, 0x11223344) /* ECAM's base in MiB */
    Name (VECL, 0x11223344) /* .. its bytes, 0: none */
    Name (VW0B, 0x11223344) /* windows of the root bridge: base, bytes; */
    Name (VW0L, 0x11223344) /* two below 4 GiB .. */
    Name (VW1B, 0x11223344)
    Name (VW1L, 0x11223344)
    Name (VW2G, 0x11223344) /* .. and one above RAM, both in GiB */
    Name (VW2L, 0x11223344)
    Name (VCOM, 0x11223344) /* bit n: COM(n+1) is there */
    Name (VMOU, 0x11223344) /* 1: there is a mouse */

    /* SLP_TYP of soft-off, as dev/misc/acpi_pm.c takes it. */
    Name (\_S5, Package () { 0, 0, 0, 0 })

    /* 0: 8259s, 1: IOAPIC (5.8.1). */
    Name (\PICM, 0)
    Method (\_PIC, 1)
    {
        PICM = Arg0
    }

    Scope (\_SB)
    {
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A08")) /* PCI Express root bridge */
            Name (_CID, EisaId ("PNP0A03"))
            Name (_UID, 0)
            Name (_SEG, 0)
            Name (_BBN, 0)

            /* What goes to PCI whatever firmware does. */
            Name (CRS0, ResourceTemplate ()
            {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
                    0, 0, 0xff, 0, 0x100)
                IO (Decode16, 0xcf8, 0xcf8, 1, 8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
                    0, 0, 0xcf7, 0, 0xcf8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
                    0, 0xd00, 0xffff, 0, 0xf300)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                    0, 0xa0000, 0xbffff, 0, 0x20000)
            })
            Name (CRSM, ResourceTemplate ()
            {
                QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable,
                    ReadWrite, 0, 0, 0, 0, 0, , , WIN)
            })

            /* A window: base, bytes. */
            Method (WIND, 2, Serialized)
            {
                CreateQWordField (CRSM, ^WIN._MIN, WMIN)
                CreateQWordField (CRSM, ^WIN._MAX, WMAX)
                CreateQWordField (CRSM, ^WIN._LEN, WLEN)
                WMIN = Arg0
                WMAX = Arg0 + Arg1 - 1
                WLEN = Arg1
                Return (CRSM)
            }

            Method (_CRS, 0, Serialized)
            {
                Local0 = CRS0
                If (VW0L)
                {
                    Local0 = ConcatenateResTemplate (Local0, WIND (VW0B, VW0L))
                }
                If (VW1L)
                {
                    Local0 = ConcatenateResTemplate (Local0, WIND (VW1B, VW1L))
                }
                If (VW2L)
                {
                    Local0 = ConcatenateResTemplate (Local0, WIND (VW2G << 30, VW2L << 30))
                }
                Return (Local0)
            }

            /* The operating system may have everything that PCI Express offers
             * (PCI Firmware Specification 3.0, 4.5.1), which is hot plug of
             * nothing: native hot plug and SHPC are refused. */
            Name (SUPP, 0)
            Name (CTRL, 0)
            Method (_OSC, 4, Serialized)
            {
                CreateDWordField (Arg3, 0, CDW1)
                If (Arg0 == ToUUID ("33db4d5b-1ff7-401c-9657-7441c03dd766"))
                {
                    CreateDWordField (Arg3, 4, CDW2)
                    CreateDWordField (Arg3, 8, CDW3)
                    SUPP = CDW2
                    CTRL = CDW3 & 0x1c
                    If (Arg1 != 1)
                    {
                        CDW1 |= 8 /* unknown revision */
                    }
                    If (CDW3 != CTRL)
                    {
                        CDW1 |= 0x10 /* some were masked */
                    }
                    CDW3 = CTRL
                }
                Else
                {
                    CDW1 |= 4 /* unknown UUID */
                }
                Return (Arg3)
            }

            /*
             * Interrupt routing: devices 0 to 24 rotate over PIRQE to PIRQH,
             * 25 to 31 are as the chipset's DxxIR registers reset: INTA to
             * PIRQA and so on. PIRQA is GSI 16.
             */
            Method (LINK, 1) /* PIRQ -> an entry that names its link */
            {
                If (Arg0 == 0) { Return (Package () { 0, 0, LNKA, 0 }) }
                If (Arg0 == 1) { Return (Package () { 0, 0, LNKB, 0 }) }
                If (Arg0 == 2) { Return (Package () { 0, 0, LNKC, 0 }) }
                If (Arg0 == 3) { Return (Package () { 0, 0, LNKD, 0 }) }
                If (Arg0 == 4) { Return (Package () { 0, 0, LNKE, 0 }) }
                If (Arg0 == 5) { Return (Package () { 0, 0, LNKF, 0 }) }
                If (Arg0 == 6) { Return (Package () { 0, 0, LNKG, 0 }) }
                Return (Package () { 0, 0, LNKH, 0 })
            }

            Method (_PRT, 0, Serialized)
            {
                Local0 = Package (128) {}
                Local1 = 0 /* device * 4 + pin */
                While (Local1 < 128)
                {
                    Local2 = Local1 >> 2
                    Local3 = Local1 & 3
                    If (Local2 < 25)
                    {
                        Local4 = ((Local2 + Local3) & 3) + 4
                    }
                    Else
                    {
                        Local4 = Local3
                    }
                    If (PICM)
                    {
                        Local5 = Package () { 0, 0, 0, 0 }
                        Local5 [3] = Local4 + 16
                    }
                    Else
                    {
                        Local5 = LINK (Local4)
                    }
                    Local5 [0] = (Local2 << 16) | 0xffff
                    Local5 [1] = Local3
                    Local0 [Local1] = Local5
                    Local1++
                }
                Return (Local0)
            }

            Device (MCH)
            {
                Name (_ADR, 0)
            }

            Device (ISA)
            {
                Name (_ADR, 0x001f0000)

                /* PIRQx_ROUT: bit 7 off, bits 0 to 3 the 8259 input. */
                OperationRegion (PIRQ, PCI_Config, 0x60, 0x0c)
                Field (PIRQ, ByteAcc, NoLock, Preserve)
                {
                    PRQA, 8,
                    PRQB, 8,
                    PRQC, 8,
                    PRQD, 8,
                    Offset (8),
                    PRQE, 8,
                    PRQF, 8,
                    PRQG, 8,
                    PRQH, 8
                }

                Device (PIC)
                {
                    Name (_HID, EisaId ("PNP0000"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x20, 0x20, 1, 2)
                        IO (Decode16, 0xa0, 0xa0, 1, 2)
                        IO (Decode16, 0x4d0, 0x4d0, 1, 2)
                        IRQNoFlags () { 2 }
                    })
                }

                Device (PIT)
                {
                    Name (_HID, EisaId ("PNP0100"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x40, 0x40, 1, 4)
                        IRQNoFlags () { 0 }
                    })
                }

                Device (SPKR)
                {
                    Name (_HID, EisaId ("PNP0800"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x61, 0x61, 1, 1)
                    })
                }

                Device (RTC)
                {
                    Name (_HID, EisaId ("PNP0B00"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x70, 0x70, 1, 8)
                        IRQNoFlags () { 8 }
                    })
                }

                Device (FPU)
                {
                    Name (_HID, EisaId ("PNP0C04"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0xf0, 0xf0, 1, 1)
                        IRQNoFlags () { 13 }
                    })
                }

                Device (KBD)
                {
                    Name (_HID, EisaId ("PNP0303"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x60, 0x60, 1, 1)
                        IO (Decode16, 0x64, 0x64, 1, 1)
                        IRQNoFlags () { 1 }
                    })
                }

                Device (MOU)
                {
                    Name (_HID, EisaId ("PNP0F13"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IRQNoFlags () { 12 }
                    })
                    Method (_STA)
                    {
                        If (VMOU)
                        {
                            Return (0x0f)
                        }
                        Return (0)
                    }
                }

                /* Bit of VCOM -> _STA */
                Method (COMS, 1)
                {
                    If (VCOM & Arg0)
                    {
                        Return (0x0f)
                    }
                    Return (0)
                }

                Device (COM1)
                {
                    Name (_HID, EisaId ("PNP0501"))
                    Name (_UID, 1)
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x3f8, 0x3f8, 1, 8)
                        IRQNoFlags () { 4 }
                    })
                    Method (_STA)
                    {
                        Return (COMS (1))
                    }
                }

                Device (COM2)
                {
                    Name (_HID, EisaId ("PNP0501"))
                    Name (_UID, 2)
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x2f8, 0x2f8, 1, 8)
                        IRQNoFlags () { 3 }
                    })
                    Method (_STA)
                    {
                        Return (COMS (2))
                    }
                }

                Device (COM3)
                {
                    Name (_HID, EisaId ("PNP0501"))
                    Name (_UID, 3)
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x3e8, 0x3e8, 1, 8)
                        IRQNoFlags () { 4 }
                    })
                    Method (_STA)
                    {
                        Return (COMS (4))
                    }
                }

                Device (COM4)
                {
                    Name (_HID, EisaId ("PNP0501"))
                    Name (_UID, 4)
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x2e8, 0x2e8, 1, 8)
                        IRQNoFlags () { 3 }
                    })
                    Method (_STA)
                    {
                        Return (COMS (8))
                    }
                }

                /* Ports of the chipset that are no device's. */
                Device (MBRD)
                {
                    Name (_HID, EisaId ("PNP0C02"))
                    Name (_UID, 1)
                    Name (MCRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x80, 0x80, 1, 1)
                        IO (Decode16, 0x92, 0x92, 1, 1)
                        IO (Decode16, 0xb2, 0xb2, 1, 2)
                        IO (Decode16, 0, 0, 1, 0x80, PMIO)
                    })
                    Method (_CRS, 0, Serialized)
                    {
                        CreateWordField (MCRS, ^PMIO._MIN, PMIN)
                        CreateWordField (MCRS, ^PMIO._MAX, PMAX)
                        PMIN = VPMB
                        PMAX = VPMB
                        Return (MCRS)
                    }
                }
            }
        }

        /* ECAM is nobody else's (PCI Firmware Specification 3.0, 4.1.2). */
        Device (ECAM)
        {
            Name (_HID, EisaId ("PNP0C02"))
            Name (_UID, 2)
            Name (ECRS, ResourceTemplate ()
            {
                QWordMemory (ResourceConsumer, PosDecode, MinFixed, MaxFixed, NonCacheable,
                    ReadWrite, 0, 0, 0, 0, 0, , , EWIN)
            })
            Method (_STA)
            {
                If (VECL)
                {
                    Return (0x0f)
                }
                Return (0)
            }
            Method (_CRS, 0, Serialized)
            {
                CreateQWordField (ECRS, ^EWIN._MIN, EMIN)
                CreateQWordField (ECRS, ^EWIN._MAX, EMAX)
                CreateQWordField (ECRS, ^EWIN._LEN, ELEN)
                EMIN = VECM << 20
                EMAX = (VECM << 20) + VECL - 1
                ELEN = VECL
                Return (ECRS)
            }
        }

        Device (HPET)
        {
            Name (_HID, EisaId ("PNP0103"))
            Name (_UID, 0)
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadOnly, 0xfed00000, 0x400)
            })
        }

        /* How a kernel reads what the host has to say. */
        Device (FWCF)
        {
            Name (_HID, "QEMU0002")
            Name (_STA, 0x0b)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16, 0x510, 0x510, 1, 0x0c)
            })
        }

        /*
         * Interrupt links: what PIRQx drives of the 8259s (6.2.13). One set of
         * methods works on the register's value.
         */
        Name (LPRS, ResourceTemplate ()
        {
            IRQ (Level, ActiveLow, Shared) { 5, 10, 11 }
        })
        Name (LCRS, ResourceTemplate ()
        {
            IRQ (Level, ActiveLow, Shared, LIRQ) { 5 }
        })
        Method (LSTA, 1)
        {
            If (Arg0 & 0x80)
            {
                Return (0x09)
            }
            Return (0x0b)
        }
        Method (LCUR, 1, Serialized)
        {
            CreateWordField (LCRS, ^LIRQ._INT, LMSK)
            If (Arg0 & 0x80)
            {
                LMSK = 0
            }
            Else
            {
                LMSK = 1 << (Arg0 & 0x0f)
            }
            Return (LCRS)
        }
        Method (LSET, 1, Serialized)
        {
            CreateWordField (Arg0, 1, LNEW)
            FindSetRightBit (LNEW, Local0)
            If (Local0)
            {
                Return (Local0 - 1)
            }
            Return (0x80)
        }

        Device (LNKA)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 0)
            Method (_PRS)
            {
                Return (LPRS)
            }
            Method (_STA)
            {
                Return (LSTA (\_SB.PCI0.ISA.PRQA))
            }
            Method (_DIS)
            {
                \_SB.PCI0.ISA.PRQA |= 0x80
            }
            Method (_CRS)
            {
                Return (LCUR (\_SB.PCI0.ISA.PRQA))
            }
            Method (_SRS, 1)
            {
                \_SB.PCI0.ISA.PRQA = LSET (Arg0)
            }
        }

        Device (LNKB)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 1)
            Method (_PRS)
            {
                Return (LPRS)
            }
            Method (_STA)
            {
                Return (LSTA (\_SB.PCI0.ISA.PRQB))
            }
            Method (_DIS)
            {
                \_SB.PCI0.ISA.PRQB |= 0x80
            }
            Method (_CRS)
            {
                Return (LCUR (\_SB.PCI0.ISA.PRQB))
            }
            Method (_SRS, 1)
            {
                \_SB.PCI0.ISA.PRQB = LSET (Arg0)
            }
        }

        Device (LNKC)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 2)
            Method (_PRS)
            {
                Return (LPRS)
            }
            Method (_STA)
            {
                Return (LSTA (\_SB.PCI0.ISA.PRQC))
            }
            Method (_DIS)
            {
                \_SB.PCI0.ISA.PRQC |= 0x80
            }
            Method (_CRS)
            {
                Return (LCUR (\_SB.PCI0.ISA.PRQC))
            }
            Method (_SRS, 1)
            {
                \_SB.PCI0.ISA.PRQC = LSET (Arg0)
            }
        }

        Device (LNKD)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 3)
            Method (_PRS)
            {
                Return (LPRS)
            }
            Method (_STA)
            {
                Return (LSTA (\_SB.PCI0.ISA.PRQD))
            }
            Method (_DIS)
            {
                \_SB.PCI0.ISA.PRQD |= 0x80
            }
            Method (_CRS)
            {
                Return (LCUR (\_SB.PCI0.ISA.PRQD))
            }
            Method (_SRS, 1)
            {
                \_SB.PCI0.ISA.PRQD = LSET (Arg0)
            }
        }

        Device (LNKE)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 4)
            Method (_PRS)
            {
                Return (LPRS)
            }
            Method (_STA)
            {
                Return (LSTA (\_SB.PCI0.ISA.PRQE))
            }
            Method (_DIS)
            {
                \_SB.PCI0.ISA.PRQE |= 0x80
            }
            Method (_CRS)
            {
                Return (LCUR (\_SB.PCI0.ISA.PRQE))
            }
            Method (_SRS, 1)
            {
                \_SB.PCI0.ISA.PRQE = LSET (Arg0)
            }
        }

        Device (LNKF)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 5)
            Method (_PRS)
            {
                Return (LPRS)
            }
            Method (_STA)
            {
                Return (LSTA (\_SB.PCI0.ISA.PRQF))
            }
            Method (_DIS)
            {
                \_SB.PCI0.ISA.PRQF |= 0x80
            }
            Method (_CRS)
            {
                Return (LCUR (\_SB.PCI0.ISA.PRQF))
            }
            Method (_SRS, 1)
            {
                \_SB.PCI0.ISA.PRQF = LSET (Arg0)
            }
        }

        Device (LNKG)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 6)
            Method (_PRS)
            {
                Return (LPRS)
            }
            Method (_STA)
            {
                Return (LSTA (\_SB.PCI0.ISA.PRQG))
            }
            Method (_DIS)
            {
                \_SB.PCI0.ISA.PRQG |= 0x80
            }
            Method (_CRS)
            {
                Return (LCUR (\_SB.PCI0.ISA.PRQG))
            }
            Method (_SRS, 1)
            {
                \_SB.PCI0.ISA.PRQG = LSET (Arg0)
            }
        }

        Device (LNKH)
        {
            Name (_HID, EisaId ("PNP0C0F"))
            Name (_UID, 7)
            Method (_PRS)
            {
                Return (LPRS)
            }
            Method (_STA)
            {
                Return (LSTA (\_SB.PCI0.ISA.PRQH))
            }
            Method (_DIS)
            {
                \_SB.PCI0.ISA.PRQH |= 0x80
            }
            Method (_CRS)
            {
                Return (LCUR (\_SB.PCI0.ISA.PRQH))
            }
            Method (_SRS, 1)
            {
                \_SB.PCI0.ISA.PRQH = LSET (Arg0)
            }
        }
    }
}
